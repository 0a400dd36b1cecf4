"""What of a set of trajectories hurts training: each finding is a kind, where it is, and what is wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from alpha_umi.errors import ToolError
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, ToolMessage, Trajectory, schema_problem
from alpha_umi.validation import check_call

NAME_LIMIT = 64
_CUT = re.compile(r"(\.\.\.|…|\[?truncated\]?\.?)\s*\Z", re.IGNORECASE)
_SHORT = 200

KINDS: Mapping[str, str] = MappingProxyType({
    "long_name": f"a tool's name has {NAME_LIMIT} characters or more: it was probably cut, or will be by a server",
    "same_name": "two tools of one list have the same name",
    "broken_schema": "a tool's parameters are no JSON Schema",
    "malformed_call": "a call could not be read",
    "undeclared_tool": "a call names a tool that is not in the list",
    "broken_arguments": "a call's arguments break the tool's schema",
    "unanswered_call": "a call has no observation, though the trajectory goes on",
    "cut_observation": "a long observation ends in an ellipsis: it was cut when it was recorded",
    "empty_observation": "an observation is empty",
    "no_decision": "a trajectory in which nothing is decided: there is nothing to learn from it",
    "duplicate": "a trajectory that was there before, word for word",
})  # fmt: skip
"""Every kind of finding and what it means."""


@dataclass(frozen=True)
class Finding:
    """Something that hurts training.

    Attributes:
        kind: A key of ``KINDS``.
        index: Place of the trajectory, from 0.
        what: Which tool, call or message.
    """

    kind: str
    index: int
    what: str


def check(trajectories: Iterable[Trajectory]) -> Iterator[Finding]:
    """Looks at each trajectory once; memory grows by a hash a trajectory."""
    seen: dict[bytes, int] = {}
    for index, trajectory in enumerate(trajectories):
        for kind, what in _findings(trajectory):
            yield Finding(kind, index, what)
        words = repr((trajectory.tools, trajectory.messages)).encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(words).digest()
        if digest in seen:
            yield Finding("duplicate", index, f"of trajectory {seen[digest]}")
        seen.setdefault(digest, index)


def _findings(trajectory: Trajectory) -> Iterator[tuple[str, str]]:
    names: set[str] = set()
    for tool in trajectory.tools:
        if len(tool.name) >= NAME_LIMIT:
            yield "long_name", tool.name
        if tool.name in names:
            yield "same_name", tool.name
        names.add(tool.name)
        problem = schema_problem(tool.schema)
        if problem is not None:
            yield "broken_schema", f"{tool.name}: {problem}"
    decided = False
    open_calls: dict[str, str] = {}
    for message in trajectory.messages:
        if isinstance(message, AssistantMessage):
            yield from (("unanswered_call", name) for name in open_calls.values())
            decided = decided or message.decision is not None
            for call in message.tool_calls:
                yield from _call(call, trajectory.tools)
            open_calls = {call.id: call.name for call in message.tool_calls}
        elif isinstance(message, ToolMessage):
            open_calls.pop(message.tool_call_id, None)
            if not message.content.strip():
                yield "empty_observation", message.tool_call_id
            elif len(message.content) >= _SHORT and _CUT.search(message.content):
                yield "cut_observation", message.tool_call_id
    if not decided:
        yield "no_decision", trajectory.id or ""


def _call(call: ToolCall, tools: tuple[Tool, ...]) -> Iterator[tuple[str, str]]:
    try:
        check_call(call, tools)
    except ToolError as error:
        kinds = {"malformed_call": "malformed_call", "unknown_tool": "undeclared_tool"}
        yield kinds.get(error.kind, "broken_arguments"), f"{call.name}: {error}"
