r"""API-Bank: dialogues with executed API calls, and the next-call rows that ToolRL made of them.

Two kinds of record:

* A dialogue, ``{"path", "turns"}``: turns of ``User`` and ``AI`` (``text``) and of ``API`` (``api_name``,
  ``param_dict``, ``result``: {``input``, ``output``, ``exception``}). All values in ``param_dict`` are strings; the API
  ran with ``input``, which has the types, so that is what the call's arguments are. An AI turn directly before an API
  turn announces the call: it is its rationale. A few AI texts hold a call that was never recorded,
  ``[Api(key='value')]``: it becomes a call without an observation.
* A next-call row, ``{"system", "user", "answer", "other"}``: the tools stand in the system text, the dialogue so far in
  the user text (``<user>``, ``<response>``, ``<tool_call>``, ``<obs>``), the call to make in ``answer``. The last user
  turn, which asks for exactly one call, is the row's own addition and is left out, like the output rules in the system
  text; they belong to ToolRL's prompt.

A dialogue shows the tools it calls and those that its file name lists. Their documents come from next-call rows beside
the file (or in ``--tools``); a tool without one is inferred from its calls, and parameters that a document doesn't know
are added. No document says what is required. The CSV of all APIs is not used: for over half of the calls it declares
other parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from alpha_umi.data.call_texts import literal, python_call, read_call, type_schema
from alpha_umi.data.format import Format, Options
from alpha_umi.data.records import RecordError, read_records, source_files
from alpha_umi.data.tool_schemas import inferred_tools, keep, make_call
from alpha_umi.errors import DataError
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

NAMESPACE = "api-bank"
ASKED = "Based on our conversation above, please only make one tool call to solve my need."
"""The last user turn of every next-call row."""

_TOOLS_START, _TOOLS_END = "**Available Tools**", "**Steps for Each Turn**"
_TOOL = re.compile(r"^\d+\. Name: (.+)\nDescription: (.*(?:\n(?!Parameters: ).*)*)\nParameters: (.*)$", re.MULTILINE)
_SAID = re.compile(r"<(user|response|tool_call|obs)>(.*?)</\1>", re.DOTALL)
_INLINE = re.compile(r"\[(\w+\(.*?\))\]", re.DOTALL)
_FILE = re.compile(r"([\w-]+?)-level-\d")
_ROWS = "*-api_processed.json*"


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Result(_Open):
    input: dict[str, Any] | None = None
    output: Any = None
    exception: Any = None


class _Said(_Open):
    role: Literal["User", "AI"]
    text: str


class _Called(_Open):
    role: Literal["API"]
    api_name: str = Field(min_length=1)
    param_dict: dict[str, Any]
    result: _Result

    def arguments(self) -> dict[str, Any]:
        """What the API ran with."""
        ran = self.result.input
        return ran if ran is not None and ran.keys() == self.param_dict.keys() else self.param_dict


def _kind(turn: Any) -> str:
    return "call" if isinstance(turn, dict) and turn.get("role") == "API" else "said"


_Turn = Annotated[Annotated[_Said, Tag("said")] | Annotated[_Called, Tag("call")], Discriminator(_kind)]


class _Dialogue(_Open):
    path: str = ""
    turns: list[_Turn] = Field(min_length=1)


class _Answer(_Open):
    name: str = Field(min_length=1)
    parameters: dict[str, Any]


class _Row(_Open):
    system: str
    user: str
    answer: _Answer | list[_Answer]
    other: Any = None


@dataclass(frozen=True)
class Documents:
    """Tool documents by name: description, and parameters as JSON Schema."""

    found: Mapping[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def beside(cls, file: Path, options: Options) -> Documents:
        """Those of the next-call rows in ``--tools`` or beside the file; none if there are no rows.

        Raises:
            DataError: Rows can't be read.
        """
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for path in source_files(options.tools) if options.tools else sorted(file.parent.glob(_ROWS)):
            rows = read_records(path)
            systems = {row["system"] for row in rows if isinstance(row, dict) and isinstance(row.get("system"), str)}
            try:
                found |= {name: (text, schema) for one in sorted(systems) for name, text, schema in _described(one)}
            except RecordError as error:
                raise DataError(path, str(error)) from error
        return cls(found)

    def tool(self, name: str, calls: Sequence[ToolCall]) -> Tool | None:
        """The tool of this name, with every parameter that it has in these calls; None if nothing is known of it."""
        inferred = next((tool for tool in inferred_tools(calls, NAMESPACE) if tool.name == name), None)
        if name not in self.found:
            return inferred
        description, schema = self.found[name]
        properties = (inferred.parameters["properties"] if inferred else {}) | schema["properties"]
        return Tool.of(name, description, schema | {"properties": properties})


def _described(system: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, description and parameters of each tool in a row's system text."""
    for found in _TOOL.finditer(system):
        parameters = literal(found[3])
        if not isinstance(parameters, dict) or not all(isinstance(one, dict) for one in parameters.values()):
            raise RecordError("system: the parameters of a tool can't be read")
        properties = {name: _property(one) for name, one in parameters.items()}
        yield found[1].strip(), found[2], {"type": "object", "properties": properties}


def _property(given: Mapping[str, Any]) -> dict[str, Any]:
    description = given.get("description")
    return type_schema(str(given.get("type", ""))) | ({"description": description} if description else {})


# ---- dialogues ----------------------------------------------------------------------------------------------------


def read(record: Any, name: str, documents: Documents | None = None) -> Trajectory:
    """Makes a trajectory of a dialogue or of a next-call row."""
    if isinstance(record, dict) and "turns" not in record:
        return _row(_Row.model_validate(record), name)
    parsed = _Dialogue.model_validate(record)
    messages = tuple(_dialogue(parsed.turns))
    calls = [call for message in messages if isinstance(message, AssistantMessage) for call in message.tool_calls]
    listed = _FILE.match(Path(parsed.path).name)
    names = {call.name for call in calls} | set(listed[1].split("-") if listed else ())
    made = ((documents or Documents()).tool(one, calls) for one in sorted(names))
    origin = {key: value for key, value in record.items() if key != "turns"}
    return Trajectory(tuple(tool for tool in made if tool), messages, name, keep(NAMESPACE, origin))


def looks_like(record: Any) -> bool:
    """Whether it is a dialogue of User, AI and API, or a next-call row with its tools in the system text."""
    if not isinstance(record, dict):
        return False
    turns = record.get("turns")
    if isinstance(turns, list) and turns:
        roles = [turn.get("role") for turn in turns if isinstance(turn, dict)]
        return len(roles) == len(turns) and all(role in ("User", "AI", "API") for role in roles)
    system = record.get("system")
    return {"user", "answer"} <= record.keys() and isinstance(system, str) and _TOOLS_START in system


def _dialogue(turns: Sequence[_Said | _Called]) -> Iterator[Message]:
    made = 0
    announced: str | None = None
    for turn, following in zip(turns, [*turns[1:], None], strict=True):
        if isinstance(turn, _Called):
            made += 1
            call = make_call(f"call_{made}", turn.api_name, json_text(turn.arguments()))
            yield AssistantMessage(announced, (call,))
            yield ToolMessage(call.id, _output(turn.result), keep(NAMESPACE, _left(turn)))
            announced = None
        elif turn.role == "User":
            yield UserMessage(turn.text)
        else:
            said = list(_inline(turn.text, made))
            made += sum(bool(message.tool_calls) for message in said)
            if isinstance(following, _Called) and said[-1].content is not None:
                announced = said.pop().content
            yield from said


def _inline(text: str, made: int) -> Iterator[AssistantMessage]:
    """An AI turn; a call that is written in its text is a turn of its own, with the words before it as rationale."""
    at = 0
    for found in _INLINE.finditer(text):
        call = python_call(found[1], f"call_{made + 1}")
        if call is not None:
            yield AssistantMessage(text[at : found.start()].strip() or None, (call,))
            made, at = made + 1, found.end()
    if at == 0 or text[at:].strip():
        yield AssistantMessage(content=text[at:].strip() if at else text)


def _output(result: _Result) -> str:
    given = result.output if result.exception is None else {"output": result.output, "exception": result.exception}
    return given if isinstance(given, str) else json_text(given)


def _left(turn: _Called) -> dict[str, Any]:
    """What an API turn says beyond call and observation."""
    return {} if turn.arguments() == turn.param_dict else {"param_dict": turn.param_dict}


# ---- next-call rows -----------------------------------------------------------------------------------------------


def _row(row: _Row, name: str) -> Trajectory:
    instructions, _, rest = row.system.partition(_TOOLS_START)
    if not rest or _TOOLS_END not in rest:
        raise RecordError("system: no list of tools between its usual headings")
    tools = tuple(Tool.of(*described) for described in _described(rest.partition(_TOOLS_END)[0]))
    said = [(found[1], found[2].strip()) for found in _SAID.finditer(row.user)]
    if said and said[-1] == ("user", ASKED):
        said.pop()
    answers = row.answer if isinstance(row.answer, list) else [row.answer]
    if not answers:
        raise RecordError("answer: no call")
    messages = [SystemMessage(instructions.strip()), *_history(said, answers)]
    return Trajectory(tools, tuple(messages), name, keep(NAMESPACE, {"other": row.other} if row.other else {}))


def _history(said: Sequence[tuple[str, str]], answers: Sequence[_Answer]) -> Iterator[Message]:
    """The dialogue so far, then the calls to make."""
    calls: tuple[ToolCall, ...] = ()
    made = 0
    announced: str | None = None
    following = [tag for tag, _ in said[1:]] + ["tool_call"]
    for (tag, text), after in zip(said, following, strict=True):
        if tag == "obs":
            if not calls:
                raise RecordError("user: an <obs> follows no <tool_call>")
            yield ToolMessage(calls[0].id, text)
            calls = calls[1:]
        elif tag == "user":
            yield UserMessage(text)
        elif tag == "tool_call":
            lines = [line for line in text.splitlines() if line.strip()]
            calls = tuple(read_call(line, f"call_{made + n}") for n, line in enumerate(lines, 1))
            yield AssistantMessage(announced, calls)
            announced, made = None, made + len(calls)
        elif after == "tool_call":
            announced = text
        else:
            yield AssistantMessage(content=text)
    last = [
        make_call(f"call_{made + n}", answer.name, json_text(answer.parameters)) for n, answer in enumerate(answers, 1)
    ]
    yield AssistantMessage(announced, tuple(last))


def _files(path: str | Path) -> list[Path]:
    """Of a folder, the dialogues and next-call rows; the other files are databases and documents."""
    files = source_files(path)
    ours = [file for file in files if ".jsonl" in file.suffixes or file.match(_ROWS)]
    return ours if Path(path).is_dir() and ours else files


FORMAT = Format(
    "api-bank", "API-Bank dialogues (lv1_lv2), and the next-call rows made of them (level-*-api_processed)",
    read, looks_like, context=Documents.beside, files=_files,
)  # fmt: skip
