r"""LLaMA-Factory's function-calling data: ShareGPT conversations, and its messages of typed parts.

A conversation is ``{"conversations": [{"from", "value"}], "tools": JSON text, "system": text}`` where ``from`` is

* ``human``; ``system`` (the same as the field ``system``);
* ``gpt``: an answer; ``function_call``: JSON ``{"name", "arguments"}``, or a list of these. Both may open with the
  rationale, ``<think>\n...\n</think>\n\n``. Text that stands directly before a ``function_call`` is its rationale;
* ``observation``: the reply. LLaMA-Factory wants turns to alternate, so one observation answers all the calls of a
  turn: as a JSON list of as many replies, or joined by ``\n</tool_response>\n<tool_response>\n``.

The other form is ``{"messages": [{"role", "content": [{"type", "value"}]}], "tools": JSON text}`` with parts ``text``,
``reasoning`` and ``tool_call``.

Types in Python's words in a tool's parameters (``str``, ``int, optional``) are put into JSON Schema's. Nothing is lost:
what the record's own fields don't determine is kept in ``extra["sharegpt"]``, and used again as long
as it still says what the record says. The format has no way to give up, nor a turn that decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, takewhile
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.call_texts import json_items, read_calls, read_tools, says_the_same, write_tools
from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import keep
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)
from alpha_umi.transcript import caller_text

NAMESPACE = "sharegpt"

JOINT = "\n</tool_response>\n<tool_response>\n"
"""What stands between the replies to several calls, as LLaMA-Factory itself joins them."""

_THINK = re.compile(r"\A<think>\n?(.*?)\n?</think>\n*", re.DOTALL)
_SPEAKERS = {"human", "gpt", "function_call", "observation", "system"}
_PARTS = {"text", "reasoning", "tool_call"}


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Turn(_Closed):
    speaker: Literal["human", "gpt", "function_call", "observation", "system"] = Field(alias="from")
    value: str


class _Part(_Closed):
    type: Literal["text", "reasoning", "tool_call"]
    value: str


class _Message(_Closed):
    role: Literal["system", "user", "assistant", "tool"]
    content: list[_Part]

    def text(self) -> str:
        """The one text of a message that is not the assistant's."""
        if len(self.content) != 1 or self.content[0].type != "text":
            raise RecordError("a user, system or tool message is not one text")
        return self.content[0].value


class _Conversation(_Open):
    turns: list[_Turn] = Field(alias="conversations", min_length=1)


class _Typed(_Open):
    turns: list[_Message] = Field(alias="messages", min_length=1)


# ---- reading ------------------------------------------------------------------------------------------------------


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    typed = isinstance(record, dict) and "conversations" not in record and "messages" in record
    parsed = (_Typed if typed else _Conversation).model_validate(record)
    rest: dict[str, Any] = dict(parsed.model_extra or {})
    extra: dict[str, Any] = {"messages": True} if typed else {}
    tools: tuple[Tool, ...] = ()
    if rest.get("tools") not in (None, ""):
        tools, form = read_tools(rest.pop("tools"), NAMESPACE)
        extra |= {} if form is True else {"tools": form}
    elif "tools" not in rest:
        extra["no_tools"] = True
    messages: list[Message] = []
    if isinstance(rest.get("system"), str) and rest["system"]:
        messages.append(SystemMessage(rest.pop("system")))
    messages += _in_order(_typed(parsed.turns) if isinstance(parsed, _Typed) else _turns(parsed.turns))
    if rest:
        extra["record"] = rest
    return Trajectory(tools, tuple(messages), name, keep(NAMESPACE, extra))


def looks_like(record: Any) -> bool:
    """Whether it is a conversation with tools in LLaMA-Factory's words, or messages of its typed parts."""
    if not isinstance(record, dict):
        return False
    turns = record.get("conversations")
    if isinstance(turns, list):
        said = [turn for turn in turns if isinstance(turn, dict) and isinstance(turn.get("from"), str)]
        speakers = {turn["from"] for turn in said}
        texts = [turn["value"] for turn in said if isinstance(turn.get("value"), str)]
        tagged = any(tag in text for text in texts for tag in ("<tool_call>", "<tools>"))
        with_tools = "tools" in record or "function_call" in speakers
        return bool(said) and len(said) == len(turns) and speakers <= _SPEAKERS and with_tools and not tagged
    messages = [message for message in _list(record.get("messages")) if isinstance(message, dict)]
    parts = [part for message in messages for part in _list(message.get("content"))]
    return bool(parts) and all(map(_part, parts))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _part(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("value"), str):
        return False
    return isinstance(value.get("type"), str) and value["type"] in _PARTS


def _in_order(parts: Iterable[Message | list[str]]) -> Iterator[Message]:
    """Numbers the calls of all turns, and has observations (texts of turns in a row) answer the calls before them."""
    calls: tuple[ToolCall, ...] = ()
    made = 0
    for part in parts:
        if isinstance(part, AssistantMessage):
            calls = tuple(replace(call, id=f"call_{number}") for number, call in enumerate(part.tool_calls, made + 1))
            made += len(calls)
            yield replace(part, tool_calls=calls)
        elif isinstance(part, list):
            yield from _observations(part, calls)
            calls = ()
        else:
            yield part
            calls = ()


def _turns(turns: Sequence[_Turn]) -> Iterator[Message | list[str]]:
    for observed, group in groupby(turns, lambda turn: turn.speaker == "observation"):
        said = list(group)
        if observed:
            yield [turn.value for turn in said]
            continue
        at = 0
        while at < len(said):
            announced = _announced(said[at : at + 2])
            yield announced or _turn(said[at])
            at += 2 if announced else 1


def _turn(turn: _Turn) -> Message:
    if turn.speaker == "human":
        return UserMessage(turn.value)
    if turn.speaker == "system":
        return SystemMessage(turn.value, keep(NAMESPACE, {"turn": True}))
    message = _said(turn.value, turn.speaker == "function_call")
    return message if _value(message) == turn.value else replace(message, extra=keep(NAMESPACE, {"value": turn.value}))


def _said(value: str, called: bool) -> AssistantMessage:
    """What a ``gpt`` or ``function_call`` turn says."""
    thought = _THINK.match(value)
    rationale, rest = (thought[1], value[thought.end() :]) if thought else (None, value)
    if not called:
        return AssistantMessage(rationale, content=rest)
    return AssistantMessage(rationale, read_calls(json_items(rest) or [rest]))


def _announced(turns: Sequence[_Turn]) -> AssistantMessage | None:
    """A call with the ``gpt`` turn before it as rationale; None if it isn't so, or one has a rationale of its own."""
    if [turn.speaker for turn in turns] != ["gpt", "function_call"]:
        return None
    text, value = (turn.value for turn in turns)
    message = _said(value, called=True)
    if message.reasoning_content is not None or _THINK.match(text):
        return None
    extra = {"announced": True} if _value(message) == value else {"announced": True, "value": value}
    return replace(message, reasoning_content=text, extra=keep(NAMESPACE, extra))


def _typed(messages: Sequence[_Message]) -> Iterator[Message | list[str]]:
    for observed, group in groupby(messages, lambda message: message.role == "tool"):
        if observed:
            yield [message.text() for message in group]
        else:
            yield from map(_message, group)


def _message(message: _Message) -> Message:
    if message.role == "user":
        return UserMessage(message.text())
    if message.role == "system":
        return SystemMessage(message.text(), keep(NAMESPACE, {"turn": True}))
    parts = [part.model_dump() for part in message.content]
    said = _parts_said(parts)
    return said if _parts(said) == parts else replace(said, extra=keep(NAMESPACE, {"parts": parts}))


def _parts_said(parts: Sequence[Mapping[str, str]]) -> AssistantMessage:
    """What an assistant's parts say; text beside calls belongs to the rationale."""
    values = {kind: [part["value"] for part in parts if part["type"] == kind] for kind in _PARTS}
    thoughts, texts, calls = values["reasoning"], values["text"], values["tool_call"]
    if calls:
        thoughts, texts = thoughts + texts, []
    return AssistantMessage(
        "\n".join(thoughts) if thoughts else None, read_calls(calls), "\n".join(texts) if texts else None
    )


def _observations(texts: Sequence[str], calls: Sequence[ToolCall]) -> Iterator[ToolMessage]:
    if not calls:
        raise RecordError("an observation follows no call")
    extra: dict[str, Any] = {}
    if len(texts) == len(calls):
        replies: Sequence[str] = texts
        extra = {"separate": True} if len(calls) > 1 else {}
    elif len(texts) == 1:
        replies = _divided(texts[0], len(calls))
        extra = {} if JOINT.join(replies) == texts[0] else {"value": texts[0]}
    else:
        replies = ()
    if len(replies) != len(calls):
        raise RecordError("the observations are not as many as the calls")
    for call, reply in zip(calls, replies, strict=True):
        yield ToolMessage(call.id, reply, keep(NAMESPACE, extra))
        extra = extra if "separate" in extra else {}


def _divided(text: str, number: int) -> list[str]:
    """The replies to several calls that one observation holds, or fewer if it can't be divided."""
    if number == 1:
        return [text]
    joined = text.split(JOINT)
    items = json_items(text) or []
    return items if len(joined) == 1 and len(items) == number else joined


# ---- writing ------------------------------------------------------------------------------------------------------


def write(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as one record; what came from this format is the very record it came from.

    Raises:
        RecordError: It gives up, decides nothing, leaves some calls of a turn unanswered, or its texts would read
            back as something else.
    """
    extra = trajectory.extra.get(NAMESPACE, {})
    rest = dict(extra.get("record", {}))
    messages = list(trajectory.messages)
    if messages and isinstance(messages[0], SystemMessage) and not _notes(messages[0]).get("turn"):
        rest["system"] = messages.pop(0).content
    if not messages:
        raise RecordError("a conversation without turns")
    if trajectory.tools or not ("tools" in rest or extra.get("no_tools")):
        rest["tools"] = write_tools(trajectory.tools, NAMESPACE, extra.get("tools", True))
    typed = bool(extra.get("messages"))
    return {"messages" if typed else "conversations": list(_written(messages, typed))} | rest


def _notes(message: Message) -> Mapping[str, Any]:
    return message.extra.get(NAMESPACE, {})


def _written(messages: Sequence[Message], typed: bool) -> Iterator[dict[str, Any]]:
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if isinstance(message, AssistantMessage):
            replies = list(takewhile(lambda other: isinstance(other, ToolMessage), messages[at:]))
            at += len(replies)
            if not typed and at < len(messages) and _announces(message, messages[at]):
                raise RecordError("an answer directly before a call would read back as its rationale")
            yield from _parts_written(message) if typed else _values_written(message)
            yield from (_say("tool", text, typed) for text in _joined(message.tool_calls, replies))
        else:
            yield _say(message.role, message.content, typed)


def _announces(message: AssistantMessage, following: Message) -> bool:
    if message.content is None or message.reasoning_content is not None or not isinstance(following, AssistantMessage):
        return False
    return bool(following.tool_calls) and following.reasoning_content is None


def _say(role: str, text: str, typed: bool) -> dict[str, Any]:
    if typed:
        return {"role": role, "content": [{"type": "text", "value": text}]}
    return {"from": {"user": "human", "tool": "observation"}.get(role, role), "value": text}


def _values_written(message: AssistantMessage) -> Iterator[dict[str, str]]:
    _check(message)
    extra = _notes(message)
    speaker = "function_call" if message.tool_calls else "gpt"
    if extra.get("announced") and message.tool_calls and message.reasoning_content is not None:
        yield {"from": "gpt", "value": message.reasoning_content}
        message = replace(message, reasoning_content=None)
    for value in (extra.get("value"), _value(message)):
        if isinstance(value, str) and says_the_same(_said(value, bool(message.tool_calls)), message):
            yield {"from": speaker, "value": value}
            return
    raise RecordError("a turn would read back as something else")


def _value(message: AssistantMessage) -> str:
    """A turn's text as it is usually written."""
    calls = [caller_text([call]) for call in message.tool_calls]
    text = (message.content or "") if not calls else calls[0] if len(calls) == 1 else f"[{', '.join(calls)}]"
    thought = message.reasoning_content
    return text if thought is None else f"<think>\n{thought}\n</think>\n\n{text}"


def _parts_written(message: AssistantMessage) -> Iterator[dict[str, Any]]:
    parts = _notes(message).get("parts")
    if not (isinstance(parts, list) and says_the_same(_parts_said(parts), message)):
        _check(message)
        parts = _parts(message)
        if not says_the_same(_parts_said(parts), message):
            raise RecordError("a turn would read back as something else")
    yield {"role": "assistant", "content": parts}


def _parts(message: AssistantMessage) -> list[dict[str, str]]:
    """A turn's parts as they usually are."""
    thought, text = message.reasoning_content, message.content
    parts = [] if thought is None else [{"type": "reasoning", "value": thought}]
    parts += [] if text is None else [{"type": "text", "value": text}]
    return parts + [{"type": "tool_call", "value": caller_text([call])} for call in message.tool_calls]


def _check(message: AssistantMessage) -> None:
    if message.refusal is not None:
        raise RecordError("the format has no way to give up")
    if message.decision is None:
        raise RecordError("the format has no turn that decides nothing")


def _joined(calls: Sequence[ToolCall], replies: Sequence[Message]) -> list[str]:
    """The observation turns that answer a turn's calls."""
    found = [reply for reply in replies if isinstance(reply, ToolMessage)]
    if not found:
        return []
    if [reply.tool_call_id for reply in found] != [call.id for call in calls]:
        raise RecordError("the observations don't answer all calls of their turn, in order")
    texts = [reply.content for reply in found]
    extra = _notes(found[0])
    if extra.get("separate"):
        return texts
    for value in (extra.get("value"), JOINT.join(texts)):
        if isinstance(value, str) and _divided(value, len(calls)) == texts:
            return [value]
    raise RecordError("an observation would read back as something else")


FORMAT = Format(
    "sharegpt", "LLaMA-Factory's ShareGPT with function_call and observation turns, or its typed message parts",
    read, looks_like, write=write,
)  # fmt: skip
