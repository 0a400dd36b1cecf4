r"""The α-UMi data format, as published with the paper: ``conversations`` of ToolBench trajectories.

A record is ``{"tools": [{"Name", "function", "input": {arg: "type, description"}}], "instruction", "conversations":
[{"from", "value"}]}`` where ``from`` is

* ``user``: the instruction, and texts that the depth-first search injected (these stay user turns);
* ``assistant``: the planner, a rationale that ends in `` Next: caller.``, `` Next: conclusion.`` or
  `` Next: give up.``; without such an ending it decided nothing;
* ``caller``: ``Action: NAME\nAction Input: JSON``;
* ``observation`` and ``conclusion``: the tool's reply and the final answer.

Nothing is lost: where the record's own fields don't determine the original text, ``extra["alpha-umi"]`` holds the rest.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    Extra,
    Message,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)

NAMESPACE = "alpha-umi"

GIVE_UP_TEXT = "I give up: I could not solve this with the tools at hand."
"""What the user is told where the planner gives up: the format records only the decision, no words for the user."""

MARKERS = {Decision.CALL: " Next: caller.", Decision.FINISH: " Next: conclusion.", Decision.GIVE_UP: " Next: give up."}
"""How a planner turn ends, in its usual form; an ending that differs is kept in ``extra`` as ``marker``."""

_MARKER = re.compile(r"Next:[ \t]*(caller|conclusion|give up)[ \t]*\.?\s*\Z", re.IGNORECASE)
_DECISIONS = {"caller": Decision.CALL, "conclusion": Decision.FINISH, "give up": Decision.GIVE_UP}
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


class _Tool(_Strict):
    Name: str = Field(min_length=1)
    function: str = ""
    input: dict[str, str] = {}


class _Turn(_Strict):
    speaker: Literal["user", "assistant", "caller", "observation", "conclusion"] = Field(alias="from")
    value: str


class _Record(_Strict):
    tools: list[_Tool]
    instruction: str | None = None
    conversations: list[_Turn] = Field(min_length=1)


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    tools = tuple(_tool(tool) for tool in parsed.tools)
    messages = _messages(parsed.conversations)
    rest: dict[str, Any] = dict(parsed.model_extra or {})
    said = [turn.value for turn in parsed.conversations if turn.speaker == "user"]
    if not said:
        raise RecordError("the conversation has no user turn")
    if parsed.instruction is not None and parsed.instruction != said[0]:
        rest["instruction"] = parsed.instruction
    return Trajectory(tools, messages, name, {NAMESPACE: rest} if rest else {})


def looks_like(record: Any) -> bool:
    """Whether it has conversations whose speakers are the format's own."""
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list) or not turns:
        return False
    speakers = {turn.get("from") for turn in turns if isinstance(turn, dict) and isinstance(turn.get("from"), str)}
    return "user" in speakers and speakers <= {"user", "assistant", "caller", "observation", "conclusion"}


def _extra(**values: Any) -> Extra:
    return {NAMESPACE: values} if values else {}


def _tool(tool: _Tool) -> Tool:
    parameters = {"type": "object", "properties": {name: _property(text) for name, text in tool.input.items()}}
    return Tool.of(tool.Name, tool.function, parameters, _extra(**tool.model_dump(exclude_unset=True)))


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
            messages.append(UserMessage(turn.value))
            continue
        if turn.speaker == "observation":
            raise RecordError("an observation follows no call")
        rationale: str | None = None
        decision: Decision | None = None
        extra: dict[str, str] = {}
        if turn.speaker == "assistant":
            rationale, decision, extra = _planner(turn.value)
            follower = turns[at].speaker if at < len(turns) else None
            if decision is None and follower in ("caller", "conclusion"):
                extra, decision = {"marker": ""}, Decision.CALL if follower == "caller" else Decision.FINISH
            if decision is None or decision is Decision.GIVE_UP:
                refusal = GIVE_UP_TEXT if decision else None
                messages.append(AssistantMessage(rationale, refusal=refusal, extra=_extra(**extra)))
                continue
            wanted = "caller" if decision is Decision.CALL else "conclusion"
            if follower != wanted:
                raise RecordError(f"the planner hands over to the {wanted}, but no {wanted} turn follows")
            turn = turns[at]
            at += 1
        if turn.speaker == "conclusion":
            messages.append(AssistantMessage(rationale, content=turn.value, extra=_extra(**extra)))
            continue
        calls += 1
        call, rest = _call(turn.value, f"call_{calls}")
        messages.append(AssistantMessage(rationale, (call,), extra=_extra(**extra, **rest)))
        if at == len(turns) or turns[at].speaker != "observation":
            raise RecordError("a call has no observation")
        messages.append(ToolMessage(call.id, turns[at].value))
        at += 1
    return tuple(messages)


def _planner(text: str) -> tuple[str, Decision | None, dict[str, str]]:
    """Splits a planner turn into rationale, decision and what ``extra`` must remember."""
    found = _MARKER.search(text)
    if found is None:
        return text, None, {}
    decision = _DECISIONS[found[1].lower()]
    rationale = text[: found.start()].rstrip()
    marker = text[len(rationale) :]
    return rationale, decision, {} if marker == MARKERS[decision] else {"marker": marker}


def _call(text: str, call_id: str) -> tuple[ToolCall, dict[str, str]]:
    """Reads a caller turn; one that can't be read keeps all its text as arguments and is marked malformed."""
    found = _CALL.match(text)
    if found is not None:
        name, arguments = found[1].strip(), found[2]
        call = ToolCall(call_id, name, arguments)
        if name and call.parsed() is not None:
            return call, {} if name == found[1] else {"action": found[1]}
    named = _NAME.search(text)
    return ToolCall(call_id, named[1].strip() if named else "", text, malformed=True), {}


def planner_text(message: AssistantMessage) -> str | None:
    """The planner turn that ``message`` was made from, byte for byte; None if there was none."""
    if message.reasoning_content is None:
        return None
    usual = MARKERS[message.decision] if message.decision else ""
    return message.reasoning_content + message.extra.get(NAMESPACE, {}).get("marker", usual)


def caller_text(message: AssistantMessage) -> str | None:
    """The caller turn that ``message`` was made from, byte for byte; None if it calls nothing."""
    if not message.tool_calls:
        return None
    call = message.tool_calls[0]
    name = message.extra.get(NAMESPACE, {}).get("action", call.name)
    return call.arguments if call.malformed else f"Action: {name}\nAction Input: {call.arguments}"


FORMAT = Format(
    "alpha-umi", "α-UMi's `conversations` (stage 2 and test files): planner, caller, observation, conclusion",
    read, looks_like,
)  # fmt: skip
