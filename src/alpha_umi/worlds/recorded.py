"""Recorded calls that answer again: ToolTalk's conversations and TRAJECT-Bench's trajectories.

A call that was recorded gets its recorded reply; of equal calls, the n-th gets the n-th, and those beyond the last one.
A call that was not gets an error that is true of the nearest recorded call of its tool: which parameters lack, are too
many, or have values for which there is nothing. It says no recorded value, which might be what is asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alpha_umi.errors import ToolError
from alpha_umi.trajectory import AssistantMessage, Message, Tool, ToolMessage, Trajectory
from alpha_umi.worlds.protocol import Failure

_FAILED = ("exception", "execution_status")


@dataclass(frozen=True)
class Recorded:
    """One call and its reply.

    Attributes:
        tool: Its name.
        arguments: As they were.
        reply: What came of it.
        failed: Whether that is a failure.
    """

    tool: str
    arguments: Mapping[str, Any]
    reply: str
    failed: bool

    @property
    def key(self) -> tuple[str, str]:
        """Equal for equal calls, whatever the order of their arguments."""
        return _key(self.tool, self.arguments)


def recorded_calls(messages: Sequence[Message]) -> Iterator[Recorded]:
    """The calls of a conversation that have a reply, in their order; malformed ones are left out."""
    replies = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    for message in messages:
        for call in message.tool_calls if isinstance(message, AssistantMessage) else ():
            arguments, reply = call.parsed(), replies.get(call.id)
            if arguments is not None and reply is not None:
                yield Recorded(call.name, arguments, reply.content, _has_failed(reply))


@dataclass
class RecordedSource:
    """The tools of a trajectory, whose recorded calls answer.

    Attributes:
        trajectory: What was recorded.
        begun: How many of its messages have happened already.
    """

    trajectory: Trajectory
    begun: int = 0
    _calls: dict[tuple[str, str], list[Recorded]] = field(default_factory=dict, init=False, repr=False)
    _made: Counter[tuple[str, str]] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        for call in recorded_calls(self.trajectory.messages):
            self._calls.setdefault(call.key, []).append(call)
        self._made.update(call.key for call in recorded_calls(self.trajectory.messages[: self.begun]))

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that the trajectory shows."""
        return self.trajectory.tools

    @property
    def in_order(self) -> frozenset[str]:
        """All of them: which of equal calls is first makes a difference."""
        return self.reversible

    @property
    def reversible(self) -> frozenset[str]:
        """All of them: what was called can be forgotten."""
        return frozenset(tool.name for tool in self.tools)

    def snapshot(self) -> object:
        """How often each call was made."""
        return self._made.copy()

    def restore(self, state: object) -> None:
        """Forgets what was called since."""
        assert isinstance(state, Counter)
        self._made = state.copy()

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """The recorded reply."""
        key = _key(name, arguments)
        calls = self._calls.get(key)
        if calls is None:
            raise ToolError(Failure.NOT_RECORDED.value, self._not_recorded(name, arguments))
        call = calls[min(self._made[key], len(calls) - 1)]
        self._made[key] += 1
        if call.failed:
            raise ToolError(Failure.API_ERROR.value, call.reply)
        return call.reply

    def _not_recorded(self, name: str, arguments: Mapping[str, Any]) -> str:
        others = [calls[0] for calls in self._calls.values() if calls[0].tool == name]
        if not others:
            return f"{name} has no data"
        nearest = min(others, key=lambda other: len(_differing(arguments, other.arguments)))
        schema = next((tool.parameters for tool in self.tools if tool.name == name), {})
        return "; ".join(_complaint(one, arguments, nearest.arguments, schema) for one in _differing(
            arguments, nearest.arguments
        ))  # fmt: skip


def _key(tool: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
    return tool, json.dumps(arguments, sort_keys=True)


def _differing(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """Names of the parameters that are not the same in two calls."""
    both = dict.fromkeys([*given, *recorded])
    return [one for one in both if one not in given or one not in recorded or given[one] != recorded[one]]


def _complaint(name: str, given: Mapping[str, Any], recorded: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if name not in given:
        properties = schema.get("properties")
        about = properties.get(name) if isinstance(properties, Mapping) else None
        kind = about.get("type") if isinstance(about, Mapping) else None
        return f"{name} is missing" + (f" (type {kind})" if isinstance(kind, str) else "")
    return f"there is no data for this {name}" if name in recorded else f"there is no data with {name}"


def _has_failed(reply: ToolMessage) -> bool:
    notes = [note for note in reply.extra.values() if isinstance(note, Mapping)]
    return any(note.get(name) for note in notes for name in _FAILED)
