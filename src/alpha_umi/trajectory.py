"""The record: one tool-use conversation as OpenAI chat data, kept exactly as it was written.

A JSONL line is ``{"tools": [...], "messages": [...], "id": ..., "extra": {...}}``. Three rules make it usable as
training data, as a log and as an export format at once:

* A tool's schema is the *text* of its JSON object, and a call's ``arguments`` is the string the model wrote. Neither is
  ever re-serialised, so both survive any number of round trips byte for byte.
* An assistant turn carries each role's words in its own field: ``reasoning_content`` (planner), ``tool_calls``
  (caller), ``content`` (summarizer), ``refusal`` (what the user is told when the planner gives up).
* What a foreign format has beyond this lives in one namespaced ``extra`` on the trajectory, a message or a tool.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from alpha_umi.errors import DataError, UserError

Extra = Mapping[str, Any]
_NO_EXTRA: Extra = {}
OURS = "alpha_umi"
"""What this project itself notes lies under this key of an ``extra``."""
_HALF = re.compile("[\ud800-\udfff]")


class Decision(StrEnum):
    """What the planner decides; the value is the word it writes after ``Next:``."""

    CALL = "Caller"
    FINISH = "Summarizer"
    GIVE_UP = "Give up"


@dataclass(frozen=True)
class Tool:
    """One callable function, as in OpenAI.

    Attributes:
        schema: Verbatim JSON text of the function object (``name``, ``description``, ``parameters``), on one line.
        extra: Namespaced data of the format the tool came from.
    """

    schema: str
    extra: Extra = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "\n" in self.schema or "\r" in self.schema:
            object.__setattr__(self, "schema", json.dumps(json.loads(self.schema), ensure_ascii=False))
        parsed = self.function
        if not isinstance(parsed, dict) or not isinstance(parsed.get("name"), str) or not parsed["name"]:
            raise ValueError("a tool needs a JSON object with a non-empty string 'name'")
        if not isinstance(parsed.get("parameters", {}), dict):
            raise ValueError(f"tool {parsed['name']!r}: 'parameters' must be a JSON Schema object")

    @classmethod
    def of(cls, name: str, description: str, parameters: Mapping[str, Any], extra: Extra = _NO_EXTRA) -> Tool:
        """Builds a tool from its parts; ``parameters`` is a JSON Schema of type object.

        The description comes first: a causal model finds what a wish needs by its description and reads on from there
        to the name and the parameters, but never learnt to go back to a name (docs/experiments.md).
        """
        function = {"description": description, "name": name, "parameters": parameters}
        return cls(_escape_halves(_dumps(function)), extra)

    @cached_property
    def function(self) -> dict[str, Any]:
        """The parsed function object."""
        try:
            return json.loads(self.schema)
        except json.JSONDecodeError as error:
            raise ValueError(f"a tool's schema is not JSON: {error}") from error
        except RecursionError as error:
            raise ValueError("a tool's schema is nested too deeply") from error

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function["name"]

    @property
    def description(self) -> str:
        """The function's description, empty if it has none."""
        return self.function.get("description") or ""

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the arguments; an empty object schema if the tool declares none."""
        return self.function.get("parameters") or {"type": "object", "properties": {}}


@dataclass(frozen=True)
class ToolCall:
    """One call as the caller wrote it.

    Attributes:
        id: Joins the call with its observation.
        name: The tool's name, or what could be read of it if the call is malformed (possibly empty).
        arguments: Verbatim JSON text of the arguments; of a malformed call, everything that was written.
        malformed: Whether the text could not be read as ``{"name": ..., "arguments": {...}}``.
    """

    id: str
    name: str
    arguments: str
    malformed: bool = False

    def parsed(self) -> dict[str, Any] | None:
        """The arguments as an object, or None if they are not a JSON object."""
        if self.malformed:
            return None
        try:
            value = json.loads(self.arguments)
        except (ValueError, RecursionError):  # ValueError: not JSON, or an integer of thousands of digits
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class SystemMessage:
    """Instructions of whoever runs the agent."""

    content: str
    extra: Extra = field(default_factory=dict)
    role: Literal["system"] = "system"


@dataclass(frozen=True)
class UserMessage:
    """What the user says."""

    content: str
    extra: Extra = field(default_factory=dict)
    role: Literal["user"] = "user"


@dataclass(frozen=True)
class ToolMessage:
    """The observation that answers the call with this id."""

    tool_call_id: str
    content: str
    extra: Extra = field(default_factory=dict)
    role: Literal["tool"] = "tool"


@dataclass(frozen=True)
class AssistantMessage:
    """One step of the agent: the planner's rationale and what followed from its decision.

    At most one of ``tool_calls``, ``content`` and ``refusal`` is set; none of them: a planner turn without a decision.
    """

    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    content: str | None = None
    refusal: str | None = None
    extra: Extra = field(default_factory=dict)
    role: Literal["assistant"] = "assistant"

    def __post_init__(self) -> None:
        given = [bool(self.tool_calls), self.content is not None, self.refusal is not None]
        if sum(given) > 1:
            raise ValueError("an assistant turn has tool_calls, content or refusal, not several of them")

    @property
    def decision(self) -> Decision | None:
        """The planner's decision, read off what the turn holds; None if it decided nothing."""
        if self.tool_calls:
            return Decision.CALL
        if self.content is not None:
            return Decision.FINISH
        return Decision.GIVE_UP if self.refusal is not None else None


Message = SystemMessage | UserMessage | ToolMessage | AssistantMessage


@dataclass(frozen=True)
class Trajectory:
    """A conversation with tools.

    Attributes:
        tools: The tools the agent may call, in the order it is shown them.
        messages: The turns; every tool message answers an earlier call, in call order.
        id: A name that is unique within its file, if it has one.
        extra: Namespaced data of the format the trajectory came from.
    """

    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    id: str | None = None
    extra: Extra = field(default_factory=dict)

    def __post_init__(self) -> None:
        waiting: list[str] = []
        for number, message in enumerate(self.messages):
            if isinstance(message, ToolMessage):
                if message.tool_call_id not in waiting:
                    raise ValueError(f"message {number} answers the call {message.tool_call_id!r}, which no turn made")
                waiting.remove(message.tool_call_id)
            elif isinstance(message, AssistantMessage):
                waiting = [call.id for call in message.tool_calls]
                if len(set(waiting)) < len(waiting):
                    raise ValueError(f"message {number} makes two calls with one id")

    @property
    def instruction(self) -> str:
        """The first thing the user says, or an empty string."""
        return next((m.content for m in self.messages if isinstance(m, UserMessage)), "")

    def to_json(self) -> str:
        """One JSONL line, without its line break."""
        tools = ", ".join(_tool_json(tool) for tool in self.tools)
        parts = [f'"tools": [{tools}]', f'"messages": {_dumps([_message_json(m) for m in self.messages])}']
        if self.id is not None:
            parts.insert(0, f'"id": {_dumps(self.id)}')
        if self.extra:
            parts.append(f'"extra": {_dumps(dict(self.extra))}')
        return _escape_halves("{" + ", ".join(parts) + "}")

    @classmethod
    def from_json(cls, line: str) -> Trajectory:
        """Reads one JSONL line.

        Raises:
            ValueError: The line is not a trajectory; the message says where and why.
        """
        try:
            record = _Record.model_validate(json.loads(line))
            schemas = _tool_texts(line)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            complaint = "Input should be an object" if first["type"] == "model_type" else first["msg"]
            raise ValueError(f"{where + ': ' if where else ''}{complaint}") from error
        tools = []
        for number, (schema, wire) in enumerate(zip(schemas, record.tools, strict=True)):
            try:
                tools.append(Tool(schema, wire.extra))
            except ValueError as error:
                raise ValueError(f"tools.{number}: {error}") from error
        return cls(tuple(tools), tuple(m.message() for m in record.messages), record.id, record.extra)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def json_text(value: Any) -> str:
    """A JSON value on one line, in text that UTF-8 can hold."""
    return _escape_halves(_dumps(value))


def _escape_halves(text: str) -> str:
    r"""Half a surrogate pair, which UTF-8 can't hold, goes back to the ``\ud83d`` that JSON text had for it."""
    try:
        text.encode()  # far quicker than a search, and nearly always enough
    except UnicodeEncodeError:
        return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    return text


def _tool_json(tool: Tool) -> str:
    extra = f', "extra": {_dumps(dict(tool.extra))}' if tool.extra else ""
    return f'{{"type": "function", "function": {tool.schema}{extra}}}'


def _message_json(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role}
    if isinstance(message, AssistantMessage):
        if message.reasoning_content is not None:
            out["reasoning_content"] = message.reasoning_content
        out["content"] = message.content
        if message.tool_calls:
            out["tool_calls"] = [_call_json(call) for call in message.tool_calls]
        if message.refusal is not None:
            out["refusal"] = message.refusal
    else:
        if isinstance(message, ToolMessage):
            out["tool_call_id"] = message.tool_call_id
        out["content"] = message.content
    if message.extra:
        out["extra"] = dict(message.extra)
    return out


def _call_json(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    out: dict[str, Any] = {"id": call.id, "type": "function", "function": function}
    return out | {"malformed": True} if call.malformed else out


# ---- the edge: what a line must look like -------------------------------------------------------------------------


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _WireTool(_Wire):
    type: Literal["function"] = "function"
    function: dict[str, Any]
    extra: dict[str, Any] = {}


class _WireFunction(_Wire):
    name: str
    arguments: str


class _WireCall(_Wire):
    id: str
    type: Literal["function"] = "function"
    function: _WireFunction
    malformed: bool = False


class _WireMessage(_Wire):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_WireCall] | None = None
    refusal: str | None = None
    tool_call_id: str | None = None
    extra: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fields_fit_the_role(self) -> _WireMessage:
        if self.role == "assistant":
            if self.tool_call_id is not None:
                raise ValueError("an assistant message has no 'tool_call_id'")
            return self
        if self.content is None:
            raise ValueError(f"a {self.role} message needs 'content'")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("'tool_call_id' belongs to every tool message and to no other")
        if self.reasoning_content is not None or self.tool_calls is not None or self.refusal is not None:
            raise ValueError(f"a {self.role} message has 'content' only")
        return self

    def message(self) -> Message:
        """The record's own message."""
        if self.role == "assistant":
            calls = tuple(
                ToolCall(c.id, c.function.name, c.function.arguments, c.malformed) for c in self.tool_calls or ()
            )
            return AssistantMessage(self.reasoning_content, calls, self.content, self.refusal, self.extra)
        content = self.content or ""
        if self.role == "tool":
            return ToolMessage(self.tool_call_id or "", content, self.extra)
        return (SystemMessage if self.role == "system" else UserMessage)(content, self.extra)


class _Record(_Wire):
    id: str | None = None
    tools: list[_WireTool] = []
    messages: list[_WireMessage]
    extra: dict[str, Any] = {}


_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def members_of(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Yields ``(key, start, stop)`` of each member's value in the valid JSON object that opens at ``at``."""
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, stop = _DECODER.raw_decode(text, start)
        yield key, start, stop
        at = _skip(text, stop)
        at = _skip(text, at + 1) if text[at] == "," else at


def items_of(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Yields ``(start, stop)`` of each item in the valid JSON array that opens at ``at``."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        _, stop = _DECODER.raw_decode(text, at)
        yield at, stop
        at = _skip(text, stop)
        at = _skip(text, at + 1) if text[at] == "," else at


def _tool_texts(line: str) -> list[str]:
    """The verbatim text of every ``tools[i].function`` in a valid JSON line (the last wins where a key is doubled)."""
    top = {key: start for key, start, _ in members_of(line, _skip(line, 0))}
    texts = []
    for start, _ in items_of(line, top["tools"]) if "tools" in top else ():
        spans = {key: (begin, stop) for key, begin, stop in members_of(line, start)}
        begin, stop = spans["function"]
        texts.append(line[begin:stop])
    return texts


# ---- files --------------------------------------------------------------------------------------------------------


def read_jsonl(path: str | Path) -> Iterator[Trajectory]:
    """Streams the trajectories of a JSONL file; empty lines are passed over.

    Raises:
        DataError: The file can't be read, or a line is no trajectory: names the file, the line and what is wrong.
    """
    number = 0
    try:
        with open(path, "rb") as file:  # as bytes: a text file decodes in blocks and can't tell which line is bad
            for number, data in enumerate(file, 1):  # noqa: B007 (the handlers name it)
                line = data.decode("utf-8")
                if line.strip():
                    trajectory = Trajectory.from_json(line)
                    _check_schemas(trajectory.tools)
                    yield trajectory
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8: {error.reason}", number) from error
    except json.JSONDecodeError as error:
        raise DataError(path, f"not JSON: {error.msg} at column {error.colno}", number) from error
    except OSError as error:
        raise DataError(path, f"can't be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(path, str(error), number) from error


def _check_schemas(tools: Iterable[Tool]) -> None:
    for number, tool in enumerate(tools):
        problem = schema_problem(tool.schema)
        if problem is not None:
            raise ValueError(f"tools.{number} ({tool.name}): {problem}")


@lru_cache(maxsize=4096)
def schema_problem(schema: str) -> str | None:
    """What is wrong with the ``parameters`` of a tool's schema as a JSON Schema (draft 2020-12), or None."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(Tool(schema).parameters)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        return f"'parameters{'.' + where if where else ''}' is no JSON Schema: {error.message[:200]}"
    return None


def write_jsonl(path: str | Path, trajectories: Iterable[Trajectory]) -> int:
    """Writes trajectories atomically, one a line; returns how many. On an error the file is as it was before."""
    count = 0
    with atomic_write(path) as file:
        for trajectory in trajectories:
            file.write(trajectory.to_json() + "\n")
            count += 1
    return count


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file that replaces ``path`` when the block ends well, and vanishes when it doesn't.

    The data is on disk (fsync) before the rename, so a reader sees the old file or the new one, never a part.

    Raises:
        UserError: The directory can't be written to, or the disk is full.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(
            handle, mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else "\n"
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(
            f"can't write {path}: {error.strerror or error}. Free some space or choose another place."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON document atomically, indented, with a final line break."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")
