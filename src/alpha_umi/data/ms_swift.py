r"""ms-swift's agent data: ``{"tools": "[...]", "messages": [{"role", "content"}]}`` with roles of its own for calls.

* ``tools`` is a string of JSON (a list is read too), function objects wrapped or bare.
* ``tool_call``: a string ``{"name": ..., "arguments": {...}}`` (an object is read too); several in a row are one turn.
* ``tool_response`` or ``tool``: the observations, in the order of the calls; there are no ids.
* An ``assistant`` message right before a ``tool_call`` is the rationale of that turn, bare or as
  ``<think>\n...\n</think>\n``; one with ``<think>`` and text after it is a rationale and an answer.
* Messages may have ``loss`` and ``loss_scale``; these and further columns are kept in ``extra``. Records with images,
  videos or audios are rejected.

There is no word for giving up, and nothing that tells a turn without a decision from the start of the next one: what
would not read back as the same turns is not written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import call_text, json_or_text, keep, read_call, read_tools, write_tools
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

NAMESPACE = "ms-swift"

_MEDIA = ("images", "videos", "audios")
_OBSERVED = ("tool", "tool_response")
_ROLES = frozenset({"system", "user", "assistant", "tool_call", *_OBSERVED})
_THINK = re.compile(r"\A<think>\n?(.*?)\n?</think>\n{0,2}(.*)\Z", re.DOTALL)
_JOINT = "\n\n"
_Raw = Mapping[str, Any]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Message(_Wire):
    role: Literal["system", "user", "assistant", "tool_call", "tool_response", "tool"]
    content: Any
    tool_calls: None = None


class _Record(_Wire):
    messages: list[_Message] = Field(min_length=1)


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    _Record.model_validate(record)
    if any(record.get(key) for key in _MEDIA):
        raise RecordError("the conversation has images, videos or audios")
    tools, as_text = read_tools(record["tools"], NAMESPACE) if record.get("tools") else ((), None)
    fields = {key: value for key, value in record.items() if key != "messages" and (key != "tools" or as_text is None)}
    notes: dict[str, Any] = {"fields": fields} if fields else {}
    if as_text is not None and as_text is not True:
        notes["tools"] = as_text
    return Trajectory(tools, tuple(_messages(record["messages"])), name, keep(NAMESPACE, notes))


def write(trajectory: Trajectory) -> dict[str, Any]:
    """The record that reads back as the same turns.

    Raises:
        RecordError: There is none.
    """
    notes = trajectory.extra.get(NAMESPACE, {})
    record = dict(notes.get("fields", {}))
    if trajectory.tools or "tools" in notes:
        record["tools"] = write_tools(trajectory.tools, NAMESPACE, notes.get("tools", True))
    record["messages"] = [raw for message in trajectory.messages for raw in _write(message)]
    if not trajectory.messages or _told(read(record, "")) != _told(trajectory):
        raise RecordError("a turn can't be told from the next one in this format")
    return record


def looks_like(record: Any) -> bool:
    """Whether it has messages of the format's roles, a call or an observation in the format's own way among them."""
    messages = record.get("messages") if isinstance(record, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return False
    roles = [message.get("role") for message in messages]
    known = all(isinstance(role, str) and role in _ROLES for role in roles)
    return known and ("tool_call" in roles or "tool_response" in roles)


# ---- reading ------------------------------------------------------------------------------------------------------


def _messages(raws: Sequence[_Raw]) -> Iterator[Message]:
    made = 0
    at = 0
    waiting: list[ToolCall] = []
    while at < len(raws):
        raw, role = raws[at], raws[at]["role"]
        if role in _OBSERVED:
            if not waiting:
                raise RecordError("an observation answers no call")
            yield _observation(raw, waiting.pop(0))
            at += 1
            continue
        start = at + (role == "assistant")
        stop = start
        while stop < len(raws) and raws[stop]["role"] == "tool_call":
            stop += 1
        if stop > start:
            said = raw if role == "assistant" else None
            turn = _calling_turn(said, raws[start:stop], made + 1)
            made += len(turn.tool_calls)
            waiting = list(turn.tool_calls)
            yield turn
            at = stop
            continue
        if role == "assistant":
            waiting = []
        yield _saying_turn(raw)
        at += 1


def _calling_turn(said: _Raw | None, raws: Sequence[_Raw], first: int) -> AssistantMessage:
    pairs = [_call(raw, f"call_{number}") for number, raw in enumerate(raws, first)]
    notes: dict[str, Any] = {"calls": [note for _, note in pairs]} if any(note for _, note in pairs) else {}
    rationale = None
    if said is not None:
        text = _text(said)
        rationale = _rationale(text)
        if text == rationale:
            notes["plain"] = True
        elif rationale is None or text != _thought(rationale):
            notes["said"] = text
        notes |= _fields(said)
    return AssistantMessage(rationale, tuple(call for call, _ in pairs), extra=keep(NAMESPACE, notes))


def _call(raw: _Raw, call_id: str) -> tuple[ToolCall, dict[str, Any]]:
    text, note = _json_text(raw)
    call = read_call(text, call_id)
    if text != call_text(call):
        note["text"] = text
    return call, note | _fields(raw)


def _saying_turn(raw: _Raw) -> Message:
    text = _text(raw)
    fields = _fields(raw)
    if raw["role"] != "assistant":
        return (UserMessage if raw["role"] == "user" else SystemMessage)(text, keep(NAMESPACE, fields))
    rationale, content = _split(text)
    if text != _said(rationale, content):
        fields["said"] = text
    return AssistantMessage(rationale, content=content, extra=keep(NAMESPACE, fields))


def _observation(raw: _Raw, call: ToolCall) -> ToolMessage:
    text, note = _json_text(raw)
    if raw["role"] == "tool":
        note["role"] = "tool"
    return ToolMessage(call.id, text, keep(NAMESPACE, note | _fields(raw)))


def _text(raw: _Raw) -> str:
    if not isinstance(raw["content"], str):
        raise RecordError("content: not a text")
    return raw["content"]


def _json_text(raw: _Raw) -> tuple[str, dict[str, Any]]:
    """The content, which should be a text, but may be any JSON but null."""
    if raw["content"] is None:
        raise RecordError("content: null")
    return (raw["content"], {}) if isinstance(raw["content"], str) else (json_text(raw["content"]), {"json": True})


def _fields(raw: _Raw) -> dict[str, Any]:
    fields = {key: value for key, value in raw.items() if key not in ("role", "content")}
    return {"fields": fields} if fields else {}


def _split(text: str) -> tuple[str | None, str | None]:
    """Rationale and answer of an assistant message; no answer if there is nothing after the thinking."""
    found = _THINK.match(text)
    return (None, text) if found is None else (found[1], found[2] or None)


def _rationale(text: str) -> str | None:
    """The rationale that an assistant message before a call holds."""
    rationale, rest = _split(text)
    if rationale is None:
        return text if text.strip() else None
    return rationale + _JOINT + rest if rest and rest.strip() else rationale


# ---- writing ------------------------------------------------------------------------------------------------------


def _thought(rationale: str) -> str:
    return f"<think>\n{rationale}\n</think>\n"


def _said(rationale: str | None, content: str | None) -> str:
    """An assistant message in its usual form."""
    thought = "" if rationale is None else _thought(rationale)
    return thought + ("\n" if thought and content else "") + (content or "")


def _write(message: Message) -> Iterator[dict[str, Any]]:
    notes = message.extra.get(NAMESPACE, {})
    fields = notes.get("fields", {})
    if isinstance(message, ToolMessage):
        content: Any = json_or_text(message.content) if notes.get("json") else message.content
        yield {"role": notes.get("role", "tool_response"), "content": content, **fields}
    elif not isinstance(message, AssistantMessage):
        yield {"role": message.role, "content": message.content, **fields}
    elif message.refusal is not None:
        raise RecordError("a turn gives up, for which the format has no word")
    elif not message.tool_calls:
        text = notes.get("said")
        if text is None or _split(text) != (message.reasoning_content, message.content):
            text = _said(message.reasoning_content, message.content)
        yield {"role": "assistant", "content": text, **fields}
    else:
        text = _before_calls(message, notes)
        if text is not None:
            yield {"role": "assistant", "content": text, **fields}
        spelled = notes.get("calls", [])
        if len(spelled) != len(message.tool_calls):
            spelled = [{}] * len(message.tool_calls)
        yield from map(_write_call, message.tool_calls, spelled)


def _before_calls(message: AssistantMessage, notes: Mapping[str, Any]) -> str | None:
    """The assistant message before the calls, None if there was none."""
    text, rationale = notes.get("said"), message.reasoning_content
    if text is not None and _rationale(text) == rationale:
        return text
    if rationale is None:
        return None
    return rationale if notes.get("plain") else _thought(rationale)


def _write_call(call: ToolCall, note: Mapping[str, Any]) -> dict[str, Any]:
    text = note.get("text")
    if text is None or read_call(text, call.id) != call:
        text = call_text(call)
    content = json_or_text(text) if note.get("json") else text
    return {"role": "tool_call", "content": content, **note.get("fields", {})}


def _told(trajectory: Trajectory) -> list[Any]:
    """What a trajectory says, without ids and extras: calls and observations by their place."""
    told: list[Any] = [tool.schema for tool in trajectory.tools]
    places: dict[str, int] = {}
    for message in trajectory.messages:
        if isinstance(message, ToolMessage):
            told.append((places[message.tool_call_id], message.content))
        elif isinstance(message, AssistantMessage):
            places = {call.id: place for place, call in enumerate(message.tool_calls)}
            calls = [(call.name, call.arguments, call.malformed) for call in message.tool_calls]
            told.append((message.reasoning_content, calls, message.content))
        else:
            told.append((message.role, message.content))
    return told


FORMAT = Format(
    "ms-swift", "ms-swift's agent data: `messages` with tool_call and tool_response, `tools` as a string", read,
    looks_like, write=write,
)  # fmt: skip
