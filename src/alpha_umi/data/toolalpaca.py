r"""ToolAlpaca: APIs, each with instructions and what was done about them.

An element is one API: ``Name``, ``Function_Description`` ({function: text with ``Parameters:`` (JSON) and ``Output:``},
and ``components``, a text about all of them), and either

* ``Instances`` (training data): ``{"input", "intermediate_steps": [[[action, action input, log], observation]],
  "output", "Final Thought"}``. The log is the model's text, ``thought\nAction: …\nAction Input: …``: its thought is the
  rationale. A hint (``\nHint: …``) at the end of an input was only for the model that wrote the data; or
* ``Instructions`` and ``Golden_Answers`` (evaluation data): the calls to make, without observations or an answer. They
  become one turn. A placeholder for a value of an earlier call, ``${animeId from searchAnime}``, which is no JSON,
  becomes a string; where that makes no JSON either, the record is rejected. A call marked ``[Optional]`` is listed
  in ``extra["toolalpaca"]["optional"]``.

Every list has ``getDetails``, which asks the user, as the simulation gave it to the model.
``evaluation_outputs/`` (a judge's prompts and verdicts) and ``public_apis.json`` (a list of APIs) hold no trajectories
of this form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.call_texts import type_schema
from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import keep, make_call
from alpha_umi.data.traject_bench import function_names
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)

NAMESPACE = "toolalpaca"

GET_DETAILS = Tool.of(
    "getDetails",
    "Asks the user for information that the instruction lacks and that a call can't do without.",
    {
        "type": "object",
        "properties": {"Question": {"type": "string", "description": "What to ask the user."}},
        "required": ["Question"],
    },
)
"""The tool that the simulation adds to every API's own."""

_API_FIELDS = ("Name", "Category", "Function_Description")
_DESCRIBED = re.compile(r"(.*?)\nParameters: (\{.*?\})(?:\n(Output: .*))?\Z", re.DOTALL)
_REQUIRED = re.compile(r"Required\.\s*")
_ENUM = re.compile(r"One of: \[([^\]]*)\]")
_PLACEHOLDER = re.compile(r"\$\{([^{}\"]*)\}")
_LOG = re.compile(r"\s*(?:Thought:)?(.*?)(?:^(?:ASSISTANT )?Action\s*\d*\s*:.*)?\Z", re.DOTALL | re.MULTILINE)
_OPTIONAL = "[Optional]"
_STOPPED = "Agent stopped due to"


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Api(_Open):
    name: str = Field("", alias="Name")
    category: str = Field("", alias="Category")
    functions: dict[str, str] = Field(alias="Function_Description")


class _Instance(_Open):
    input: str = Field(min_length=1)
    output: str = Field(min_length=1)
    thought: str | None = Field(None, alias="Final Thought")
    steps: list[list[Any]] = Field([], alias="intermediate_steps")


class _Golden(_Open):
    action: str = Field(alias="Action", min_length=1)
    given: str = Field(alias="Action_Input")


class _Unit(_Open):
    api: _Api
    instance: _Instance | None = None
    instruction: str = ""
    golden: list[_Golden] = []


def units(element: Any, context: None = None) -> Iterator[Any]:
    """One record an instance or instruction, with what all of them need of the API."""
    api = {key: element[key] for key in _API_FIELDS if key in element}
    if element.get("Instances") or "Golden_Answers" not in element:
        yield from ({"api": api, "instance": instance} for instance in element["Instances"])
        return
    for instruction, golden in zip(element["Instructions"], element["Golden_Answers"], strict=True):
        yield {"api": api, "instruction": instruction, "golden": golden}


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one of an API's records."""
    parsed = _Unit.model_validate(record)
    functions = {key: text for key, text in parsed.api.functions.items() if key != "components"}
    names = function_names([*functions, GET_DETAILS.name])
    tools = tuple(_tool(names[key], key, text) for key, text in functions.items())
    if GET_DETAILS.name not in functions:
        tools = (GET_DETAILS, *tools)
    notes = {"api": parsed.api.name, "category": parsed.api.category}
    components = parsed.api.functions.get("components")
    if components:
        notes["components"] = components
    if parsed.instance is None:
        messages = _golden(parsed.instruction, parsed.golden, names)
    else:
        instruction, _, hint = parsed.instance.input.partition("\nHint: ")
        messages = (UserMessage(instruction), *_steps(parsed.instance, names))
        notes |= {"hint": hint} if hint else {}
    return Trajectory(tools, messages, name, keep(NAMESPACE, notes))


def looks_like(record: Any) -> bool:
    """Whether it is an API with described functions and either instances or golden answers."""
    if not isinstance(record, dict) or not isinstance(record.get("Function_Description"), dict):
        return False
    return "Instances" in record or {"Instructions", "Golden_Answers"} <= record.keys()


def _golden(instruction: str, golden: list[_Golden], names: Mapping[str, str]) -> tuple[Message, ...]:
    if not golden or not instruction:
        raise RecordError("no instruction with a golden answer")
    calls = []
    notes: dict[str, Any] = {}
    for number, one in enumerate(golden, 1):
        call_id, action = f"call_{number}", one.action.removeprefix(_OPTIONAL)
        call = _golden_call(call_id, names.get(action, action), one.given)
        if action != one.action:
            notes.setdefault("optional", []).append(call_id)
        if call.arguments != one.given:
            notes.setdefault("Action_Input", {})[call_id] = one.given
        calls.append(call)
    return UserMessage(instruction), AssistantMessage(tool_calls=tuple(calls), extra=keep(NAMESPACE, notes))


def _golden_call(call_id: str, name: str, given: str) -> ToolCall:
    for text in (given, _PLACEHOLDER.sub(lambda found: json.dumps(found[0], ensure_ascii=False), given)):
        call = make_call(call_id, name, text)
        if not call.malformed:
            return call
    raise RecordError("golden[].Action_Input: not a JSON object, whatever its placeholders stand for")


def _steps(instance: _Instance, names: Mapping[str, str]) -> Iterator[Message]:
    if instance.output.startswith(_STOPPED):
        raise RecordError("the agent was stopped before it answered")
    for number, step in enumerate(instance.steps, 1):
        match step:
            case [[str(action), str(given), str(log)], str(observation)]:
                pass
            case _:
                raise RecordError("intermediate_steps[]: not [[action, action input, log], observation]")
        thought = _LOG.match(log)
        call = _call(f"call_{number}", names.get(action, action), given)
        yield AssistantMessage((thought[1] if thought else log).strip() or None, (call,))
        yield ToolMessage(call.id, observation)
    yield AssistantMessage((instance.thought or "").strip() or None, content=instance.output)


def _call(call_id: str, name: str, given: str) -> ToolCall:
    call = make_call(call_id, name, given.strip())
    return ToolCall(call_id, name, given, malformed=True) if call.malformed else call


def _tool(name: str, original: str, text: str) -> Tool:
    found = _DESCRIBED.match(text)
    try:
        described = json.loads(found[2]) if found else None
    except ValueError:
        described = None
    if found is None or not isinstance(described, dict):
        raise RecordError("Function_Description: a text without its parameters in JSON")
    properties = {key: _property(str(words)) for key, words in described.items()}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    required = [key for key, words in described.items() if _REQUIRED.match(str(words))]
    if required:
        parameters["required"] = required
    description = f"{found[1]}\n{found[3]}" if found[3] else found[1]
    return Tool.of(name, description, parameters, keep(NAMESPACE, {"function": original} if name != original else {}))


def _property(words: str) -> dict[str, Any]:
    """``Required. string. One of: [a, b]. What it is.`` as a JSON Schema."""
    words = _REQUIRED.sub("", words, count=1)
    kind, _, description = words.partition(".")
    schema = type_schema(kind)
    listed = _ENUM.search(words)
    if listed and schema.get("type") == "string":
        schema["enum"] = [value.strip() for value in listed[1].split(",")]
    text = (description if schema else words).strip()
    return schema | ({"description": text} if text else {})


FORMAT = Format(
    "toolalpaca", "ToolAlpaca: APIs with their instances (ReAct steps) or golden answers",
    read, looks_like, units=units, words=("APIs", "instructions"),
)  # fmt: skip
