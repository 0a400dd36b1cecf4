r"""The α-UMi data format, as published with the paper: ``conversations`` of ToolBench trajectories.

A record is ``{"tools": [{"Name", "function", "input": {arg: "type, description"}}], "instruction", "conversations":
[{"from", "value"}]}`` where ``from`` is

* ``user``: the instruction, and texts that the depth-first search injected (these stay user turns);
* ``assistant``: the planner, a rationale that ends in `` Next: caller.``, `` Next: conclusion.`` or
  `` Next: give up.``; without such an ending it decided nothing;
* ``caller``: ``Action: NAME\nAction Input: JSON``;
* ``observation`` and ``conclusion``: the tool's reply and the final answer. An observation after an end is of the
  search, which didn't accept it and went on: it stays with the end's turn, in ``extra`` as ``reply``.

Nothing is lost: where the record's own fields don't determine the original text, ``extra["alpha-umi"]`` holds the rest,
and a record that was read is written again as the same JSON value. Of a trajectory from elsewhere the format carries

* of a tool: its name, the first 256 characters of its description, and of each argument the type's name and the last
  256 of its description, as in the reference code's preprocessing and live inference;
* a turn's rationale and decision always in a planner turn, the words of a refusal at the end of the rationale;
* of a chain of ToolBench (`function_chains`): what the reference code's second preprocessing keeps, see `stage_2`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data import function_chains
from alpha_umi.data.format import Format
from alpha_umi.data.function_chains import GIVE_UP_TEXT
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    Extra,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)

NAMESPACE = "alpha-umi"

_DESCRIBED = 256
"""Characters of a description that the paper's models were shown."""

MARKERS = {Decision.CALL: " Next: caller.", Decision.FINISH: " Next: conclusion.", Decision.GIVE_UP: " Next: give up."}
"""How a planner turn ends, in its usual form; an ending that differs is kept in ``extra`` as ``marker``."""

_MARKER = re.compile(r"Next:[ \t]*(caller|conclusion|give up)[ \t]*\.?\s*\Z", re.IGNORECASE)
DECISIONS = {"caller": Decision.CALL, "conclusion": Decision.FINISH, "give up": Decision.GIVE_UP}
"""What the planner writes after ``Next:``, in lower case."""
_ENDS = (Decision.FINISH, Decision.GIVE_UP)
_CALL = re.compile(r"Action: ([^\n]*)\nAction Input: (.*)\Z", re.DOTALL)
_NAME = re.compile(r"Action:[ \t]*([^\n]*)")
_TYPES = {
    "string": "string", "str": "string", "enum": "string", "date": "string",
    "integer": "integer", "int": "integer",
    "number": "number", "float": "number", "double": "number",
    "boolean": "boolean", "bool": "boolean",
    "array": "array", "list": "array",
    "object": "object", "dict": "object",
}  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class ToolDocument(_Strict):
    """A tool as the format describes it; ``input`` is ``type, description`` by argument."""

    Name: str = Field(min_length=1)
    function: str = ""
    input: dict[str, str] = {}


class _Turn(_Strict):
    speaker: Literal["user", "assistant", "caller", "observation", "conclusion"] = Field(alias="from")
    value: str


class _Record(_Strict):
    tools: list[ToolDocument]
    instruction: str | None = None
    conversations: list[_Turn] = Field(min_length=1)


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    messages = _messages(parsed.conversations)
    rest: dict[str, Any] = dict(parsed.model_extra or {})
    said = [turn.value for turn in parsed.conversations if turn.speaker == "user"]
    if not said:
        raise RecordError("the conversation has no user turn")
    if "instruction" not in parsed.model_fields_set:
        rest["instruction"] = False  # no such field; null is one
    elif parsed.instruction != said[0]:
        rest["instruction"] = parsed.instruction
    return Trajectory(read_tools(record["tools"]), messages, name, {NAMESPACE: rest} if rest else {})


def looks_like(record: Any) -> bool:
    """Whether it has conversations whose speakers are the format's own."""
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list) or not turns:
        return False
    speakers = {turn.get("from") for turn in turns if isinstance(turn, dict) and isinstance(turn.get("from"), str)}
    return "user" in speakers and speakers <= {"user", "assistant", "caller", "observation", "conclusion"}


def _extra(**values: Any) -> Extra:
    return {NAMESPACE: values} if values else {}


def read_tools(written: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """The tools of a record's documents (`ToolDocument`), kept as they were written, the order of fields included."""
    return tuple(_tool(json.dumps(document)) for document in written)


@lru_cache(maxsize=1024)  # the same tools come with many records
def _tool(document: str) -> Tool:
    written = json.loads(document)
    tool = ToolDocument.model_validate(written)
    parameters = {"type": "object", "properties": {name: _property(text) for name, text in tool.input.items()}}
    return Tool.of(tool.Name, tool.function, parameters, {NAMESPACE: written})


def _property(text: str) -> dict[str, str]:
    """``"integer, The page"`` as a JSON Schema. An unknown type word stays in the description, the type open."""
    word, _, description = text.partition(",")
    kind = _TYPES.get(word.strip().lower())
    description = (description if kind else text).strip()
    return ({"type": kind} if kind else {}) | ({"description": description} if description else {})


def _messages(turns: list[_Turn]) -> tuple[Message, ...]:
    """Joins each planner turn with what followed from its decision."""
    messages: list[Message] = []
    calls = 0
    at = 0
    while at < len(turns):
        turn = turns[at]
        at += 1
        if turn.speaker == "user":
            messages.append(UserMessage(turn.value, _extra(**_fields(turn))))
            continue
        if turn.speaker == "observation":
            messages[-1:] = [_end_with_reply(messages[-1:], turn)]
            continue
        rationale: str | None = None
        extra: dict[str, Any] = {"marker": None}  # no planner turn
        fields: dict[str, Any] = {}
        if turn.speaker == "assistant":
            rationale, decision, extra = _planner(turn.value)
            fields = _fields(turn)
            follower = turns[at].speaker if at < len(turns) else None
            if decision is None and follower in ("caller", "conclusion"):
                extra, decision = {"marker": ""}, Decision.CALL if follower == "caller" else Decision.FINISH
            if decision is None or decision is Decision.GIVE_UP:
                refusal = GIVE_UP_TEXT if decision else None
                messages.append(AssistantMessage(rationale, refusal=refusal, extra=_extra(**extra, **fields)))
                continue
            wanted = "caller" if decision is Decision.CALL else "conclusion"
            if follower != wanted:
                raise RecordError(f"the planner hands over to the {wanted}, but no {wanted} turn follows")
            turn = turns[at]
            at += 1
        extra |= _fields(turn, fields)
        if turn.speaker == "conclusion":
            messages.append(AssistantMessage(rationale, content=turn.value, extra=_extra(**extra)))
            continue
        calls += 1
        call, rest = read_call(turn.value, f"call_{calls}")
        messages.append(AssistantMessage(rationale, (call,), extra=_extra(**extra, **rest)))
        if at == len(turns):
            break
        if turns[at].speaker != "observation":
            raise RecordError("a call has no observation")
        messages.append(ToolMessage(call.id, turns[at].value, _extra(**_fields(turns[at]))))
        at += 1
    return tuple(messages)


def _fields(turn: _Turn, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a turn has beside ``from`` and ``value``, by speaker, joined with that of the turn before."""
    known = dict(before.get("fields", {})) if before else {}
    if turn.model_extra:
        known[turn.speaker] = turn.model_extra
    return {"fields": known} if known else {}


def _end_with_reply(said: list[Message], reply: _Turn) -> AssistantMessage:
    """The last turn, an end that the search didn't accept, with its reply."""
    end = said[0] if said else None
    notes = end.extra.get(NAMESPACE, {}) if end is not None else {}
    if not isinstance(end, AssistantMessage) or end.decision not in _ENDS or "reply" in notes:
        raise RecordError("an observation follows no call")
    return replace(end, extra=_extra(**{**notes, **_fields(reply, notes), "reply": reply.value}))


def _planner(text: str) -> tuple[str, Decision | None, dict[str, str]]:
    """Splits a planner turn into rationale, decision and what ``extra`` must remember."""
    found = _MARKER.search(text)
    if found is None:
        return text, None, {}
    decision = DECISIONS[found[1].lower()]
    rationale = text[: found.start()].rstrip()
    marker = text[len(rationale) :]
    return rationale, decision, {} if marker == MARKERS[decision] else {"marker": marker}


def read_call(text: str, call_id: str) -> tuple[ToolCall, dict[str, str]]:
    """Reads a caller turn, and what ``extra`` must remember of it.

    One that can't be read keeps all its text as arguments and is marked malformed.
    """
    found = _CALL.match(text)
    if found is not None:
        name, arguments = found[1].strip(), found[2]
        call = ToolCall(call_id, name, arguments)
        if name and call.parsed() is not None:
            return call, {} if name == found[1] else {"action": found[1]}
    return ToolCall(call_id, _named(text), text, malformed=True), {}


def _named(text: str) -> str:
    """The name that can be read of a malformed call's text."""
    named = _NAME.search(text)
    return named[1].strip() if named else ""


def planner_text(message: AssistantMessage) -> str | None:
    """The planner turn that ``message`` was made from, byte for byte; None if there was none.

    Of a message from elsewhere: its rationale, a refusal's own words, and the decision.
    """
    usual = MARKERS[message.decision] if message.decision else ""
    marker = message.extra.get(NAMESPACE, {}).get("marker", usual)
    if marker is None or (message.decision is None and message.reasoning_content is None):
        return None
    rationale = message.reasoning_content or ""
    words = message.refusal or ""
    if words != GIVE_UP_TEXT and not rationale.endswith(words):
        rationale += f"\n{words}" if rationale else words
    return rationale + marker


def caller_text(message: AssistantMessage) -> str | None:
    """The caller turn that ``message`` was made from, byte for byte; None if it calls nothing.

    Of a message from elsewhere: its first call. A malformed call is all its text, with the name before it if the text
    doesn't tell it.
    """
    if not message.tool_calls:
        return None
    call = message.tool_calls[0]
    if call.malformed and call.name == _named(call.arguments):
        return call.arguments
    name = message.extra.get(NAMESPACE, {}).get("action", call.name)
    return f"Action: {name}\nAction Input: {call.arguments}"


# ---- writing --------------------------------------------------------------------------------------------------------


def stage_2(trajectory: Trajectory) -> Trajectory:
    """A trajectory of a ToolBench chain as the reference code's second preprocessing leaves it.

    A thought ends in a line break before its decision; a thought without a call is dropped; every `Finish` is an end,
    what the search replied to it included; of an observation only the ``response`` stays (nothing, where the tool
    reported an error); a refusal has no words of its own.
    """
    messages: list[Message] = []
    for message in trajectory.messages:
        if isinstance(message, ToolMessage):
            content = function_chains.response(message.content)
            end = messages[-1]
            if isinstance(end, AssistantMessage) and end.decision in _ENDS:
                messages[-1] = replace(end, extra=_extra(**end.extra[NAMESPACE], reply=content))
                continue
            message = replace(message, content=content, extra={})
        elif isinstance(message, AssistantMessage):
            if message.decision is None:
                continue
            message = _stage_2_turn(function_chains.as_end(message))
        messages.append(message)
    return replace(trajectory, messages=tuple(messages))


def _stage_2_turn(message: AssistantMessage) -> AssistantMessage:
    assert message.decision is not None
    marker = ("" if message.reasoning_content is None else "\n") + MARKERS[message.decision]
    refusal = None if message.refusal is None else GIVE_UP_TEXT
    return replace(message, refusal=refusal, extra=_extra(marker=marker))


def as_record(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory in this format: the record it was read from, or the nearest to it that the format can say.

    Doesn't ask whether that can be read back, as `write` does: a turn's calls after its first are left out, a system
    message becomes a user turn.
    """
    return _record(_stage_2_of_chains(trajectory))


def _stage_2_of_chains(trajectory: Trajectory) -> Trajectory:
    return stage_2(trajectory) if function_chains.NAMESPACE in trajectory.extra else trajectory


def _record(trajectory: Trajectory) -> dict[str, Any]:
    rest: dict[str, Any] = {"instruction": trajectory.instruction, **trajectory.extra.get(NAMESPACE, {})}
    if rest["instruction"] is False:
        del rest["instruction"]
    return {
        "tools": [tool_document(tool) for tool in trajectory.tools],
        **rest,
        "conversations": [turn for message in trajectory.messages for turn in _turns(message)],
    }


def tool_document(tool: Tool) -> dict[str, Any]:
    """A tool as the format describes it: the document it was read from, or its name, description and arguments, cut."""
    if NAMESPACE in tool.extra:
        return dict(tool.extra[NAMESPACE])
    properties = tool.parameters.get("properties")
    arguments = properties.items() if isinstance(properties, Mapping) else ()
    return {
        "Name": tool.name,
        "function": tool.description[:_DESCRIBED],
        "input": {name: _input(schema) if isinstance(schema, Mapping) else "" for name, schema in arguments},
    }


def _input(schema: Mapping[str, Any]) -> str:
    """An argument's schema as ``type, description``: the first type if it has several, no comma without both."""
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    parts = [part for part in (kind, schema.get("description")) if isinstance(part, str)]
    return ", ".join(part[-_DESCRIBED:] for part in parts)


def _turns(message: Message) -> list[dict[str, Any]]:
    notes = message.extra.get(NAMESPACE, {})
    if isinstance(message, AssistantMessage):
        said = {
            "assistant": planner_text(message), "caller": caller_text(message), "conclusion": message.content,
            "observation": notes.get("reply"),
        }  # fmt: skip
    else:
        said = {"observation" if isinstance(message, ToolMessage) else "user": message.content}
    fields = notes.get("fields", {})
    return [
        {"from": speaker, "value": value, **fields.get(speaker, {})}
        for speaker, value in said.items()
        if value is not None
    ]


def write(trajectory: Trajectory) -> dict[str, Any]:
    """The record of a trajectory.

    Raises:
        RecordError: The format has no place for one of its turns.
    """
    trajectory = _stage_2_of_chains(trajectory)
    if not any(isinstance(message, UserMessage) for message in trajectory.messages):
        raise RecordError("the conversation has no user turn")
    waiting: ToolCall | None = None
    for message in trajectory.messages:
        if isinstance(message, ToolMessage):
            waiting = None
            continue
        if waiting is not None:
            raise RecordError("a call has no observation")
        if isinstance(message, SystemMessage):
            raise RecordError("the format has no system message")
        if isinstance(message, AssistantMessage):
            waiting = _only_call(message)
    return _record(trajectory)


def _only_call(message: AssistantMessage) -> ToolCall | None:
    if message.decision is None and message.reasoning_content is None:
        raise RecordError("an assistant turn says nothing")
    if message.decision is None and _MARKER.search(message.reasoning_content or ""):
        raise RecordError("a turn that decided nothing reads like a decision")
    if len(message.tool_calls) > 1:
        raise RecordError("a turn makes several calls")
    return message.tool_calls[0] if message.tool_calls else None


FORMAT = Format(
    "alpha-umi", "α-UMi's `conversations` (stage 2 and test files): planner, caller, observation, conclusion",
    read, looks_like, write=write,
)  # fmt: skip
