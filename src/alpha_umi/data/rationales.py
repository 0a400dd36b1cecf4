"""Rationales of converted trajectories: kept, dropped, or written by rule where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from alpha_umi.errors import UserError
from alpha_umi.trajectory import AssistantMessage, Decision, Message, ToolCall, ToolMessage, Trajectory

Change = Callable[[Trajectory], Trajectory]


def keep(trajectory: Trajectory) -> Trajectory:
    """The trajectory as it is."""
    return trajectory


def drop(trajectory: Trajectory) -> Trajectory:
    """Without the rationales of its decided turns (a turn of a rationale alone is history, and stays)."""
    messages = tuple(
        replace(m, reasoning_content=None) if isinstance(m, AssistantMessage) and m.decision is not None else m
        for m in trajectory.messages
    )
    return replace(trajectory, messages=messages)


def rule(trajectory: Trajectory) -> Trajectory:
    """With a rationale for each decided turn that has none, made of the call and of what came before it."""
    messages: list[Message] = []
    replies: list[ToolMessage] = []
    named: dict[str, str] = {}
    for message in trajectory.messages:
        if isinstance(message, ToolMessage):
            replies.append(message)
        elif isinstance(message, AssistantMessage):
            if message.decision is not None and not (message.reasoning_content or "").strip():
                text = _before([named[reply.tool_call_id] for reply in replies]) + _why(message)
                message = replace(message, reasoning_content=text)
            if message.decision is not None:
                replies = []
            named = {call.id: call.name for call in message.tool_calls} or named
        messages.append(message)
    return replace(trajectory, messages=tuple(messages))


def _before(names: list[str]) -> str:
    return f"{_joined(names)} answered. " if names else ""


def _why(message: AssistantMessage) -> str:
    if message.decision is Decision.CALL:
        wants = [f"{call.name or 'a tool'}{_with(call)}" for call in message.tool_calls]
        return f"The next step is to call {_joined(wants)}."
    if message.decision is Decision.FINISH:
        return "Nothing more is needed: the user can be answered."
    return "The tools at hand can't solve this."


def _with(call: ToolCall) -> str:
    arguments = call.parsed()
    if not arguments:
        return ""
    return " with " + _joined([f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items()])


def _joined(parts: list[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


_CHANGES: Mapping[str, Change] = MappingProxyType({"keep": keep, "drop": drop, "rule": rule})


def rationales(how: str) -> Change:
    """The change for ``keep``, ``drop`` or ``rule``.

    Raises:
        UserError: It is none of them.
    """
    if how not in _CHANGES:
        raise UserError(f"unknown treatment of rationales {how!r}; known are {', '.join(_CHANGES)}.")
    return _CHANGES[how]
