r"""Hermes function calling: ChatML texts with tags, in ShareGPT form as in NousResearch/hermes-function-calling-v1.

A record is ``{"conversations": [{"from", "value"}], ...}`` where ``from`` is

* ``system``: the prompt of the format, with the function schemas in ``<tools>...</tools>`` (one JSON list, or one JSON
  object a line; part of the published data writes Python dictionaries instead);
* ``human``;
* ``gpt``: ``<think>`` or ``<scratch_pad>`` with the rationale, then, once a call,
  ``<tool_call>\n{"name", "arguments"}\n</tool_call>``, or the answer. Other text beside calls belongs to the rationale;
* ``tool``: one ``<tool_response>\n...\n</tool_response>`` a call, in one turn or several.

The prompt around the tools tells a model to write these tags, so it is no part of the trajectory's system message (what
stands before and after it is); ``extra["hermes"]["prompt"]`` keeps the whole text. Whatever else the record's own
fields don't determine is kept in ``extra`` too, and used again as long as it still says what the record says. The
format has no way to give up, nor a turn that decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.call_texts import json_items, literal, read_call, read_calls, read_tools, says_the_same
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

NAMESPACE = "hermes"

PROMPT = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. "
    "You may call one or more functions to assist with the user query. Don't make assumptions about what values to "
    "plug into functions. Here are the available tools: <tools>\n{tools}\n</tools> For each function call return a "
    "JSON object with function name and arguments within <tool_call></tool_call> XML tags as follows:\n"
    '<tool_call>\n{{"name": <function-name>, "arguments": <args-dict>}}\n</tool_call>'
)
"""The prompt that is written where a trajectory brings none; every Hermes model is told its tools in such words."""

_TOOLS = re.compile(r"<tools>\s*(?=[\[{])(.*?)\s*</tools>", re.DOTALL)
_PROMPT_START = re.compile(r"You are a function calling AI model|You are provided with function signatures|# Tools\n")
_CALL_EXAMPLE = "</tool_call>"
_THOUGHT = re.compile(r"<(think|scratch_pad)>(.*?)</\1>", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>\n?(.*?)\n?</tool_response>", re.DOTALL)
_SPEAKERS = {"system", "human", "gpt", "tool"}


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    speaker: Literal["system", "human", "gpt", "tool"] = Field(alias="from")
    value: str


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    conversations: list[_Turn] = Field(min_length=1)


# ---- reading ------------------------------------------------------------------------------------------------------


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    rest: dict[str, Any] = dict(parsed.model_extra or {})
    turns = parsed.conversations
    extra: dict[str, Any] = {"record": rest} if rest else {}
    tools: tuple[Tool, ...] = ()
    messages: list[Message] = []
    if turns[0].speaker == "system":
        instructions, tools = _prompt(turns[0].value)
        if tools:
            extra["prompt"] = turns[0].value
        if instructions or not tools:
            messages.append(SystemMessage(instructions))
        turns = turns[1:]
    if not tools and rest.get("tools"):
        tools = read_tools(rest["tools"], NAMESPACE)[0]
    messages += _messages(turns)
    return Trajectory(tools, tuple(messages), name, keep(NAMESPACE, extra))


def looks_like(record: Any) -> bool:
    """Whether it is a conversation of these speakers in which tools, calls or replies stand in their tags."""
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return False
    if not all(isinstance(turn.get("from"), str) and turn["from"] in _SPEAKERS for turn in turns):
        return False
    tags = ("<tools>", "<tool_call>", "<tool_response>")
    return any(tag in turn["value"] for turn in turns if isinstance(turn.get("value"), str) for tag in tags)


def _prompt(text: str) -> tuple[str, tuple[Tool, ...]]:
    """The instructions of a system text that are not the format's own, and its tools."""
    block = _TOOLS.search(text)
    if block is None:
        return text, ()
    tools = _listed(block[1])
    opening = _PROMPT_START.search(text, 0, block.start())
    example = text.rfind(_CALL_EXAMPLE, block.end())
    stop = example + len(_CALL_EXAMPLE) if example >= 0 else block.end()
    before, after = text[: opening.start() if opening else block.start()].strip(), text[stop:].strip()
    return "\n\n".join(part for part in (before, after) if part), tools


def _listed(text: str) -> tuple[Tool, ...]:
    """The tools of a ``<tools>`` block: a list or one object a line, in JSON or as Python's dictionaries."""
    lines = text if text.startswith("[") else f"[{', '.join(line for line in text.splitlines() if line.strip())}]"
    for whole in (lines, f"[{text}]"):
        if json_items(whole) is not None:
            return read_tools(whole, NAMESPACE)[0]
    value = literal(lines)
    if not isinstance(value, list):
        raise RecordError("the <tools> block holds no list of functions")
    return read_tools(value, NAMESPACE)[0]


def _messages(turns: Sequence[_Turn]) -> Iterator[Message]:
    calls: tuple[ToolCall, ...] = ()
    made = at = 0
    while at < len(turns):
        turn = turns[at]
        at += 1
        if turn.speaker == "tool":
            more = [other.value for other in takewhile(lambda other: other.speaker == "tool", turns[at:])]
            yield from _observations([turn.value, *more], calls)
            at, calls = at + len(more), ()
            continue
        calls = ()
        if turn.speaker == "gpt":
            message = said(turn.value, made)
            calls, made = message.tool_calls, made + len(message.tool_calls)
            yield (
                message
                if text_of(message) == turn.value
                else replace(message, extra=keep(NAMESPACE, {"value": turn.value}))
            )
        else:
            yield _told(turn)


def _told(turn: _Turn) -> Message:
    if turn.speaker == "human":
        return UserMessage(turn.value)
    return SystemMessage(turn.value, keep(NAMESPACE, {"later": True}))


def said(text: str, made: int = 0) -> AssistantMessage:
    """What an assistant's text says; the ids of its calls go on from the ``made`` calls that were before it."""
    blocks = [block for found in _CALL.finditer(text) for block in _calls_in(found[1].strip())]
    calls = read_calls(blocks, made)
    thoughts = [found[2].strip("\n") for found in _THOUGHT.finditer(text)]
    rest = _THOUGHT.sub("", text)
    if not calls:
        answer = rest.lstrip("\n") if thoughts else rest
        return AssistantMessage("\n".join(thoughts) if thoughts else None, content=answer)
    beside = _CALL.sub("", rest).strip()
    words = [*thoughts, beside] if beside else thoughts
    return AssistantMessage("\n".join(words) if words else None, calls)


def _calls_in(block: str) -> list[str]:
    """The calls of a ``<tool_call>`` block: one, but some writers put several in it, one a line."""
    lines = [line for line in block.splitlines() if line.strip()]
    if len(lines) > 1 and read_call(block, "").malformed and not any(read_call(line, "").malformed for line in lines):
        return lines
    return [block]


def _observations(texts: Sequence[str], calls: Sequence[ToolCall]) -> Iterator[ToolMessage]:
    if not calls:
        raise RecordError("a tool turn follows no call")
    replies = _replies(texts, len(calls))
    if len(replies) != len(calls):
        raise RecordError("the tool responses are not as many as the calls")
    extra = {} if texts == [_response_text(replies)] else {"values": list(texts)}
    for number, (call, reply) in enumerate(zip(calls, replies, strict=True)):
        yield ToolMessage(call.id, reply, keep(NAMESPACE, extra if number == 0 else {}))


def _replies(texts: Sequence[str], number: int) -> list[str]:
    """The replies that tool turns hold: in their tags, or, without any, one a turn."""
    replies = [reply for text in texts for reply in _RESPONSE.findall(text)]
    return replies or (list(texts) if len(texts) == number else [])


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
    instructions = None
    if messages and isinstance(messages[0], SystemMessage) and not messages[0].extra.get(NAMESPACE):
        instructions = messages.pop(0).content
    system, prompt = instructions, extra.get("prompt")
    if isinstance(prompt, str) and _says(prompt, instructions, trajectory.tools):
        system = prompt
    elif trajectory.tools and not _lists(rest.get("tools"), trajectory.tools):
        rest.pop("tools", None)
        system = _system(instructions, trajectory.tools)
    turns = [] if system is None else [{"from": "system", "value": system}]
    turns += _written(messages)
    if not turns:
        raise RecordError("a conversation without turns")
    return {"conversations": turns} | rest


def _system(instructions: str | None, tools: tuple[Tool, ...]) -> str:
    """The system text in the usual words."""
    text = PROMPT.format(tools="\n".join(_function(tool) for tool in tools))
    text = f"{instructions}\n\n{text}" if instructions else text
    if not _says(text, instructions, tools):
        raise RecordError("the system message would read back as something else")
    return text


def _says(text: str, instructions: str | None, tools: tuple[Tool, ...]) -> bool:
    try:
        found, told = _prompt(text)
    except RecordError:
        return False
    return found == (instructions or "") and _schemas(told) == _schemas(tools)


def _lists(given: Any, tools: tuple[Tool, ...]) -> bool:
    return bool(given) and _schemas(read_tools(given, NAMESPACE)[0]) == _schemas(tools)


def _schemas(tools: tuple[Tool, ...]) -> list[str]:
    return [tool.schema for tool in tools]


def _function(tool: Tool) -> str:
    return f'{{"type": "function", "function": {tool.schema}}}'


def _written(messages: Sequence[Message]) -> Iterator[dict[str, str]]:
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if isinstance(message, AssistantMessage):
            replies = list(takewhile(lambda m: isinstance(m, ToolMessage), messages[at:]))
            at += len(replies)
            yield {"from": "gpt", "value": _value(message)}
            yield from ({"from": "tool", "value": value} for value in _responses(message.tool_calls, replies))
        else:
            yield {"from": "human" if isinstance(message, UserMessage) else "system", "value": message.content}


def _value(message: AssistantMessage) -> str:
    if message.refusal is not None:
        raise RecordError("the format has no way to give up")
    if message.decision is None:
        raise RecordError("the format has no turn that decides nothing")
    notes: Mapping[str, Any] = message.extra.get(NAMESPACE, {})
    for value in (notes.get("value"), text_of(message)):
        if isinstance(value, str) and says_the_same(said(value), message):
            return value
    raise RecordError("a turn would read back as something else")


def text_of(message: AssistantMessage) -> str:
    """An assistant's text as it is usually written."""
    calls = [f"<tool_call>\n{caller_text([call])}\n</tool_call>" for call in message.tool_calls]
    thought = message.reasoning_content
    parts = [] if thought is None else [f"<think>\n{thought}\n</think>"]
    return "\n".join([*parts, *(calls or [message.content or ""])])


def _responses(calls: Sequence[ToolCall], replies: Sequence[Message]) -> list[str]:
    """The tool turns that answer a turn's calls."""
    found = [reply for reply in replies if isinstance(reply, ToolMessage)]
    if not found:
        return []
    if [reply.tool_call_id for reply in found] != [call.id for call in calls]:
        raise RecordError("the observations don't answer all calls of their turn, in order")
    texts = [reply.content for reply in found]
    values = found[0].extra.get(NAMESPACE, {}).get("values")
    for turns in (values, [_response_text(texts)]):
        if isinstance(turns, list) and _replies(turns, len(calls)) == texts:
            return turns
    raise RecordError("an observation would read back as something else")


def _response_text(replies: Sequence[str]) -> str:
    return "\n".join(f"<tool_response>\n{reply}\n</tool_response>" for reply in replies)


FORMAT = Format(
    "hermes", "Hermes (ChatML) function calling: <tools>, <tool_call> and <tool_response> tags in ShareGPT form",
    read, looks_like, write=write,
)  # fmt: skip
