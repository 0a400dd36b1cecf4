"""xLAM / APIGen (Salesforce/xlam-function-calling-60k): a query, its tools, and the calls that answer it.

A record is ``{"query", "tools", "answers"}``; ``tools`` and ``answers`` are JSON texts, or the lists themselves.
``answers`` is a list of ``{"name", "arguments"}``: no observation and no final answer, so the trajectory ends in one
turn with all the calls. A tool is ``{"name", "description", "parameters": {name: {"type", "description", "default"}}}``
with types in Python's words (``str, optional``); a parameter without ``optional`` and ``default`` is required. Some
derived sets have JSON Schemas in ``parameters`` instead, which stay as they are.

A record without a call says neither what to answer nor why, and is rejected. What the record's own fields don't
determine (fields beside these three, the text of lists) is kept in ``extra["xlam"]``.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.call_texts import json_items, read_calls, says_the_same, type_schema
from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import keep, make_tool
from alpha_umi.trajectory import AssistantMessage, Tool, Trajectory, UserMessage, json_text
from alpha_umi.transcript import caller_text

NAMESPACE = "xlam"


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    query: str = Field(min_length=1)
    tools: str | list[Any]
    answers: str | list[Any]


class _Parameter(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    type: str = ""
    description: str = ""


class _Tool(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    name: str = Field(min_length=1)
    description: str = ""
    parameters: dict[str, _Parameter] = {}


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    tools = _tools(parsed.tools)
    turn = _turn(parsed.answers)
    extra: dict[str, Any] = {}
    if parsed.model_extra:
        extra["record"] = dict(parsed.model_extra)
    if _tools_text(tools) != parsed.tools:
        extra["tools"] = parsed.tools
    if _answers_text(turn) != parsed.answers:
        extra["answers"] = parsed.answers
    return Trajectory(tools, (UserMessage(parsed.query), turn), name, keep(NAMESPACE, extra))


def looks_like(record: Any) -> bool:
    """Whether it has a query, tools and answers, as texts or lists."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("query"), str)
        and all(isinstance(record.get(key), str | list) for key in ("tools", "answers"))
    )


def _texts(given: str | list[Any], what: str) -> list[str]:
    items = json_items(given) if isinstance(given, str) else [json_text(one) for one in given]
    if items is None:
        raise RecordError(f"{what}: not a JSON array")
    return items


def _turn(answers: str | list[Any]) -> AssistantMessage:
    calls = read_calls(_texts(answers, "answers"))
    if not calls:
        raise RecordError("no call: the record says neither what to answer nor why")
    return AssistantMessage(tool_calls=calls)


def _tools(given: str | list[Any]) -> tuple[Tool, ...]:
    return tuple(_tool(json.loads(text)) for text in _texts(given, "tools"))


def _tool(given: Any) -> Tool:
    function = given["function"] if isinstance(given, dict) and isinstance(given.get("function"), dict) else given
    parameters = function.get("parameters") if isinstance(function, dict) else None
    if isinstance(parameters, dict) and parameters.get("type") == "object":
        return make_tool(json_text(function), keep(NAMESPACE, {"tool": given}))
    parsed = _Tool.model_validate(function)
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    for name, parameter in parsed.parameters.items():
        schema["properties"][name] = _property(parameter)
    required = [name for name, parameter in parsed.parameters.items() if _required(parameter)]
    if required:
        schema["required"] = required
    text = json_text({"name": parsed.name, "description": parsed.description, "parameters": schema})
    return make_tool(text, keep(NAMESPACE, {"tool": given}))


def _property(parameter: _Parameter) -> dict[str, Any]:
    schema = type_schema(parameter.type)
    if parameter.description:
        schema["description"] = parameter.description
    default = (parameter.model_extra or {}).get("default")
    return schema | ({"default": default} if default not in (None, "") else {})


def _required(parameter: _Parameter) -> bool:
    return "optional" not in parameter.type.lower() and "default" not in (parameter.model_extra or {})


def _tools_text(tools: tuple[Tool, ...]) -> str:
    return json_text([tool.extra.get(NAMESPACE, {}).get("tool", tool.function) for tool in tools])


def _answers_text(turn: AssistantMessage) -> str:
    return f"[{', '.join(caller_text([call]) for call in turn.tool_calls)}]"


def write(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as one record; what came from this format is the very record it came from.

    Raises:
        RecordError: It is not one user turn and one turn of calls without a rationale.
    """
    match trajectory.messages:
        case (UserMessage(content=query), AssistantMessage(reasoning_content=None, tool_calls=calls) as turn) if calls:
            pass
        case _:
            raise RecordError("the format holds one user turn and one turn of calls, without a rationale")
    extra = trajectory.extra.get(NAMESPACE, {})
    tools, answers = _tools_text(trajectory.tools), _answers_text(turn)
    if "tools" in extra and _tools(extra["tools"]) == trajectory.tools:
        tools = extra["tools"]
    elif _schemas(_tools(tools)) != _schemas(trajectory.tools):
        tools = json_text([tool.function for tool in trajectory.tools])
    if "answers" in extra and says_the_same(_turn(extra["answers"]), turn):
        answers = extra["answers"]
    elif not says_the_same(_turn(answers), turn):
        raise RecordError("the calls would read back as something else")
    return {"query": query, "tools": tools, "answers": answers} | dict(extra.get("record", {}))


def _schemas(tools: tuple[Tool, ...]) -> list[str]:
    return [tool.schema for tool in tools]


FORMAT = Format(
    "xlam", "xLAM / APIGen: query, tools and the calls (answers) without observations",
    read, looks_like, write=write,
)  # fmt: skip
