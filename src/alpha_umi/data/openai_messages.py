"""OpenAI chat data: ``{"messages": [...], "tools": [...]}``, in the spellings that clients and servers log.

* Tools are wrapped (``{"type": "function", "function": {...}}``) or bare, or the older ``functions``; a call's
  ``arguments`` is a string, kept verbatim, or an object; the older ``function_call`` and role ``function`` are read
  too.
* The rationale is ``reasoning_content``, ``reasoning`` or ``thinking``, and what the assistant says beside a call.
  Several of them are joined by an empty line, the same text twice counts once.
* ``content`` is a text, a list of text parts, or nothing; an observation may be any JSON.
* Missing ids are made up (``call_1``…); an observation without an id answers the first open call, of its name if it
  has one. Observations in another order are put into the order of the calls.

Which spelling a record had is in ``extra``, so that reading and writing gives the identical JSON value, and what was
changed in between is written as it now is. A record of this program's own with ``extra`` or ``malformed`` is read as
such; writing leaves these two out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeGuard

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import json_or_text, keep, make_call, read_tools, write_tools
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

NAMESPACE = "openai"
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

_REASONING = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "input_text", "output_text")
_JOINT = "\n\n"
_Notes = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """What a format of this family does where a record's ``extra`` says nothing else.

    Attributes:
        namespace: Where ``extra`` keeps the spelling of a record.
        objects: A call's arguments are an object, not a string.
        names: An observation names its tool.
    """

    namespace: str
    objects: bool = False
    names: bool = False


OPENAI = Dialect(NAMESPACE)


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Function(_Wire):
    name: str
    arguments: Any = None


class _Call(_Wire):
    id: str | None = None
    type: Literal["function"] = "function"
    function: _Function | None = None


class ChatMessage(_Wire):
    """A message as it is in the JSON."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Any = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    refusal: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


class ChatRecord(_Wire):
    """A record as it is in the JSON."""

    messages: list[ChatMessage] = Field(min_length=1)


# ---- records ------------------------------------------------------------------------------------------------------


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    return read_record(record, name, OPENAI)


def read_record(record: Any, name: str, dialect: Dialect) -> Trajectory:
    """Makes a trajectory of a record in this dialect.

    Its id is the record's own: none where the record has none, so that a stored trajectory gives the record back;
    ``name`` where it is no text.
    """
    own = _own(record)
    if own is not None:
        return own
    parsed = ChatRecord.model_validate(record)
    messages = read_messages(record["messages"], parsed.messages, dialect)
    tools, key, as_text = _tools(record, dialect.namespace)
    fields = {part: value for part, value in record.items() if part not in ("messages", key)}
    notes: _Notes = {"fields": fields} if fields else {}
    if key == "functions":
        notes["key"] = key
    if as_text:
        notes["tools_text"] = as_text
    own_id = record.get("id", "")
    named = None if own_id == "" else own_id if isinstance(own_id, str) else name
    return Trajectory(tools, messages, named, keep(dialect.namespace, notes))


def write(trajectory: Trajectory) -> dict[str, Any]:
    """Messages and tools, spelled as they came."""
    return write_record(trajectory, OPENAI)


def write_record(trajectory: Trajectory, dialect: Dialect) -> dict[str, Any]:
    """A trajectory as a record in this dialect.

    Raises:
        RecordError: A call is malformed in a way that the dialect can't show.
    """
    notes = trajectory.extra.get(dialect.namespace, {})
    as_text = notes.get("tools_text", False)
    record = dict(notes.get("fields", {}))
    if trajectory.tools or as_text:
        record[notes.get("key", "tools")] = write_tools(trajectory.tools, dialect.namespace, as_text)
    return record | {"messages": write_messages(trajectory.messages, dialect)}


def looks_like(record: Any) -> bool:
    """Whether it has messages of OpenAI's roles with text, and tools or calls (or else many formats have the same)."""
    if not isinstance(record, dict) or {"prompt", "completion", "conversations"} & record.keys():
        return False
    messages = record.get("messages")
    if not looks_like_messages(messages):
        return False
    if "tools" in record or "functions" in record:
        return isinstance(record.get("tools") or record.get("functions") or [], list)
    return any(message["role"] == "tool" or {"tool_calls", "function_call"} & message.keys() for message in messages)


def looks_like_messages(messages: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether it is a list of messages of OpenAI's roles, whose content is text."""
    return isinstance(messages, list) and bool(messages) and all(map(_looks_like_message, messages))


def _looks_like_message(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str) or message["role"] not in ROLES:
        return False
    content = message.get("content")
    if content is None or isinstance(content, str):
        return True
    return message["role"] in ("tool", "function") or _are_parts(content)


def _own(record: Any) -> Trajectory | None:
    """The record as one of this program's own, if it has what only these have."""
    if not isinstance(record, dict):
        return None
    messages = record.get("messages")
    parts = [part for part in messages if isinstance(part, dict)] if isinstance(messages, list) else []
    tools = record.get("tools")
    parts += [part for part in tools if isinstance(part, dict)] if isinstance(tools, list) else []
    calls = [call for part in parts for call in _list(part.get("tool_calls")) if isinstance(call, dict)]
    if not any("extra" in part for part in (record, *parts)) and not any("malformed" in call for call in calls):
        return None
    try:
        return Trajectory.from_json(json_text(record))
    except ValueError:
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _tools(record: Mapping[str, Any], namespace: str) -> tuple[tuple[Tool, ...], str | None, bool | str]:
    """The tools, the key they were under (None if there are none), and whether they were a string."""
    given = [key for key in ("tools", "functions") if record.get(key)]
    if len(given) > 1:
        raise RecordError("a record has both tools and functions")
    if not given:
        return (), None, False
    tools, as_text = read_tools(record[given[0]], namespace)
    return tools, given[0], as_text


# ---- reading messages ---------------------------------------------------------------------------------------------


@dataclass
class _Reader:
    """Joins observations with calls while the messages are read one after the other."""

    dialect: Dialect
    taken: set[str]
    open: list[ToolCall] = field(default_factory=list)
    made: int = 0

    def new_id(self) -> str:
        """An id that no call of the record has."""
        while True:
            self.made += 1
            if f"call_{self.made}" not in self.taken:
                return f"call_{self.made}"

    def read(self, raw: Mapping[str, Any], message: ChatMessage) -> Message:
        """The record's own message."""
        if message.role == "assistant":
            return self._assistant(raw, message)
        if message.tool_calls or message.function_call:
            raise RecordError("a message that is not the assistant's makes a call")
        if message.role in ("tool", "function"):
            return self._observation(raw, message)
        content, notes = _text(raw)
        if content is None:
            raise RecordError("a system or user message has no content")
        return self._plain(raw, content, notes)

    def _plain(self, raw: Mapping[str, Any], content: str, notes: _Notes) -> Message:
        notes |= _fields(raw, {"role", "content"})
        if raw["role"] == "developer":
            notes["role"] = "developer"
        make = UserMessage if raw["role"] == "user" else SystemMessage
        return make(content, keep(self.dialect.namespace, notes))

    def _assistant(self, raw: Mapping[str, Any], message: ChatMessage) -> AssistantMessage:
        calls, notes = self._calls(raw, message)
        content, how = _text(raw)
        texts = {key: raw[key] for key in _REASONING if isinstance(raw.get(key), str)}
        told = {"role", "content", *texts}
        if calls:
            told.add("function_call" if "function_call" in notes else "tool_calls")
        if message.refusal is not None:
            told.add("refusal")
            if calls:
                raise RecordError("a message has both calls and a refusal")
        if calls or message.refusal is not None:
            if content is not None and not content.strip():
                how = {"blank": raw["content"]}
            elif content is not None and calls:
                texts["content"] = content
            elif content is not None:
                raise RecordError("a message has both content and a refusal")
            content = None
        rationale, spans = _joined(texts)
        if spans not in ({}, {"reasoning_content": [0, len(rationale or "")]}):
            notes["rationale"] = spans
        notes |= how | _fields(raw, told)
        self.open = list(calls)
        return AssistantMessage(rationale, calls, content, message.refusal, keep(self.dialect.namespace, notes))

    def _calls(self, raw: Mapping[str, Any], message: ChatMessage) -> tuple[tuple[ToolCall, ...], _Notes]:
        if message.function_call is not None:
            if message.tool_calls:
                raise RecordError("a message has both tool_calls and a function_call")
            call, note = self._call({"function": raw["function_call"]})
            return (call,), {"function_call": {key: note[key] for key in note if key not in ("made", "untyped")}}
        if not message.tool_calls:
            return (), {}
        pairs = [self._call(one) for one in raw["tool_calls"]]
        calls = tuple(call for call, _ in pairs)
        if len({call.id for call in calls}) < len(calls):
            raise RecordError("a message makes two calls with one id")
        return calls, {"calls": [note for _, note in pairs]} if any(note for _, note in pairs) else {}

    def _call(self, raw: Mapping[str, Any]) -> tuple[ToolCall, _Notes]:
        bare = raw.get("function") is None
        function = raw if bare else raw["function"]
        if not isinstance(function.get("name"), str):
            raise RecordError("a call has no function name")
        note: _Notes = {"bare": True} if bare else {}
        call_id = raw.get("id")
        told = {"id"} if call_id is not None else set[str]()
        if call_id is None:
            call_id, note["made"] = self.new_id(), True
        if "type" not in raw:
            note["untyped"] = True
        arguments, form = _arguments(function, self.dialect.objects)
        if form is not None:
            note["arguments"] = form
        told |= {"type", "name", "arguments"} if bare else {"type", "function"}
        note |= _fields(raw, told)
        if not bare:
            note |= _fields(function, {"name", "arguments"}, "function_fields")
        return make_call(call_id, function["name"], arguments), note

    def _observation(self, raw: Mapping[str, Any], message: ChatMessage) -> ToolMessage:
        call = self._answered_call(message)
        self.open.remove(call)
        content, notes = _observed(raw)
        told = {"role", "content"}
        if message.tool_call_id is None:
            notes["made"] = True
        else:
            told.add("tool_call_id")
        if message.role == "function":
            notes["role"] = "function"
        if self.dialect.names and message.name == call.name:
            told.add("name")
        elif self.dialect.names and "name" not in raw:
            notes["nameless"] = True
        return ToolMessage(call.id, content, keep(self.dialect.namespace, notes | _fields(raw, told)))

    def _answered_call(self, message: ChatMessage) -> ToolCall:
        wanted = message.tool_call_id
        found = [call for call in self.open if wanted is None or call.id == wanted]
        if wanted is None:
            found = [call for call in found if call.name == message.name] or found
        if not found:
            raise RecordError("an observation answers no open call")
        return found[0]


def read_messages(
    raws: Sequence[Mapping[str, Any]], parsed: Sequence[ChatMessage], dialect: Dialect
) -> tuple[Message, ...]:
    """The record's messages of those in the JSON, given as they are and as they were parsed.

    Raises:
        RecordError: They don't fit together.
    """
    reader = _Reader(dialect, {call.id for message in parsed for call in message.tool_calls or () if call.id})
    messages = [reader.read(raw, message) for raw, message in zip(raws, parsed, strict=True)]
    return tuple(_in_call_order(messages, dialect.namespace))


def _in_call_order(messages: Sequence[Message], namespace: str) -> Iterator[Message]:
    """Observations in the order of their calls; where they had another, each remembers its place."""
    order: dict[str, int] = {}
    run: list[ToolMessage] = []
    for message in (*messages, None):
        if isinstance(message, ToolMessage):
            run.append(message)
            continue
        ordered = sorted(run, key=lambda one: order[one.tool_call_id])
        places = {one.tool_call_id: place for place, one in enumerate(run)} if ordered != run else {}
        for one in ordered:
            yield replace(one, extra=_with(one, namespace, place=places[one.tool_call_id])) if places else one
        run = []
        if isinstance(message, AssistantMessage):
            order = {call.id: place for place, call in enumerate(message.tool_calls)}
        if message is not None:
            yield message


def _with(message: Message, namespace: str, **notes: Any) -> dict[str, Any]:
    return {**message.extra, namespace: {**message.extra.get(namespace, {}), **notes}}


def _fields(raw: Mapping[str, Any], told: set[str], key: str = "fields") -> _Notes:
    """What of a JSON object the record has no place for."""
    if raw.keys() <= told:
        return {}
    fields = {name: value for name, value in raw.items() if name not in told}
    return {key: fields} if fields else {}


def _text(raw: Mapping[str, Any]) -> tuple[str | None, _Notes]:
    """The content as text, and how it was written if not as a text or null."""
    if "content" not in raw:
        return None, {"absent": True}
    content = raw["content"]
    if content is None or isinstance(content, str):
        return content, {}
    if not _are_parts(content):
        raise RecordError("content: neither a text nor a list of text parts")
    return "".join(part["text"] for part in content), {
        "parts": [part | {"text": len(part["text"])} for part in content]
    }


def _observed(raw: Mapping[str, Any]) -> tuple[str, _Notes]:
    """The content of an observation, which may be any JSON."""
    content = raw.get("content")
    if content is None:
        return "", {"blank": None} if "content" in raw else {"absent": True}
    if isinstance(content, str) or _are_parts(content):
        text, notes = _text(raw)
        return text or "", notes
    return json_text(content), {"json": True}


def _are_parts(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str)
        for part in content
    )


def _joined(texts: Mapping[str, str]) -> tuple[str | None, dict[str, list[int]]]:
    """The rationale that several fields hold together, and which part of it each of them holds."""
    whole = ""
    spans: dict[str, list[int]] = {}
    for key, text in texts.items():
        same = next((spans[other] for other in spans if texts[other] == text), None)
        if same is None:
            whole += _JOINT if whole and text else ""
            same = [len(whole), len(whole) + len(text)]
            whole += text
        spans[key] = same
    return (whole if texts else None), spans


def _arguments(function: Mapping[str, Any], objects: bool) -> tuple[str, str | None]:
    """A call's arguments as text, and how they were written if not in the dialect's own way."""
    if "arguments" not in function:
        return "", "absent"
    value = function["arguments"]
    if isinstance(value, str):
        return value, "string" if objects else None
    return json_text(value), None if objects and isinstance(value, dict) else "json"


# ---- writing messages ---------------------------------------------------------------------------------------------


def write_messages(messages: Sequence[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """The messages as JSON, in the order and the spelling in which they came.

    Raises:
        RecordError: A call is malformed in a way that the dialect can't show.
    """
    written: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    run: list[tuple[int, dict[str, Any]]] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            notes = message.extra.get(dialect.namespace, {})
            run.append((notes.get("place", len(run)), _write_observation(message, notes, names, dialect)))
            continue
        written += [one for _, one in sorted(run, key=lambda pair: pair[0])]
        run = []
        if isinstance(message, AssistantMessage):
            names = {call.id: call.name for call in message.tool_calls}
        written.append(_write_message(message, dialect))
    return written + [one for _, one in sorted(run, key=lambda pair: pair[0])]


def _write_message(message: Message, dialect: Dialect) -> dict[str, Any]:
    notes = message.extra.get(dialect.namespace, {})
    if isinstance(message, AssistantMessage):
        return _write_assistant(message, notes, dialect)
    return {"role": notes.get("role", message.role)} | _write_text(message.content, notes) | notes.get("fields", {})


def _write_assistant(message: AssistantMessage, notes: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    texts = _split(message, notes.get("rationale"))
    content = texts.pop("content", message.content)
    out = notes.get("fields", {}) | {"role": "assistant"} | texts | _write_text(content, notes)
    if message.refusal is not None:
        out["refusal"] = message.refusal
    if not message.tool_calls:
        return out
    if "function_call" in notes and len(message.tool_calls) == 1:
        call = _write_call(message.tool_calls[0], notes["function_call"], dialect)
        return out | {"function_call": call["function"]}
    spelled = notes.get("calls", [])
    if len(spelled) != len(message.tool_calls):
        spelled = [{}] * len(message.tool_calls)
    calls = zip(message.tool_calls, spelled, strict=True)
    return out | {"tool_calls": [_write_call(call, note, dialect) for call, note in calls]}


def _split(message: AssistantMessage, spans: Mapping[str, Sequence[int]] | None) -> dict[str, str]:
    """The rationale in the fields it came from; all of it in the first of them if it was changed since."""
    text = message.reasoning_content
    if text is None:
        return {}
    if not spans or ("content" in spans and not message.tool_calls):
        return {"reasoning_content": text}
    if max(stop for _, stop in spans.values()) != len(text):
        return {next(iter(spans)): text}
    return {key: text[start:stop] for key, (start, stop) in spans.items()}


def _write_text(text: str | None, notes: Mapping[str, Any]) -> dict[str, Any]:
    if not text and notes.get("absent"):
        return {}
    if not text and "blank" in notes:
        return {"content": notes["blank"]}
    if text is not None and "parts" in notes and sum(part["text"] for part in notes["parts"]) == len(text):
        parts, at = [], 0
        for part in notes["parts"]:
            parts.append(part | {"text": text[at : at + part["text"]]})
            at += part["text"]
        return {"content": parts}
    return {"content": text}


def _write_call(call: ToolCall, note: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    if make_call(call.id, call.name, call.arguments) != call:
        raise RecordError("a call is marked malformed, but reads well, or the other way round")
    function: dict[str, Any] = {"name": call.name}
    form = note.get("arguments", "json" if dialect.objects else "string")
    if form != "absent" or call.arguments:
        function["arguments"] = json_or_text(call.arguments) if form == "json" else call.arguments
    out: dict[str, Any] = {} if note.get("made") else {"id": call.id}
    out |= {} if note.get("untyped") else {"type": "function"}
    out |= note.get("fields", {})
    return out | function if note.get("bare") else out | {"function": function | note.get("function_fields", {})}


def _write_observation(
    message: ToolMessage, notes: Mapping[str, Any], names: Mapping[str, str], dialect: Dialect
) -> dict[str, Any]:
    out: dict[str, Any] = {"role": notes.get("role", "tool")}
    if not notes.get("made"):
        out["tool_call_id"] = message.tool_call_id
    if dialect.names and not notes.get("nameless"):
        out["name"] = names[message.tool_call_id]
    content = {"content": json_or_text(message.content)} if notes.get("json") else _write_text(message.content, notes)
    return out | content | notes.get("fields", {})


FORMAT = Format(
    "openai", "OpenAI chat data: `messages` with `tool_calls`, and `tools`", read, looks_like, write=write
)  # fmt: skip
