"""Runs the programs of recorded trajectories again, so that what they say was printed is what a sandbox prints.

Data brings the output of its programs along (`alpha_umi.data.tora`), made by another Python, or by none. An output that
comes out the same, as text or as a number, becomes what the sandbox says, word for word as in use. A trajectory with
any other is told apart: it would teach a result that its program doesn't give.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from itertools import islice

from alpha_umi.data.programs import PYTHON
from alpha_umi.tools.base import ToolSource
from alpha_umi.tools.execution import Observation, execute
from alpha_umi.tools.sandbox import SandboxLimits
from alpha_umi.trajectory import AssistantMessage, Message, ToolCall, ToolMessage, Trajectory

_AT_ONCE = 64
_EQUAL = 1e-9
"""Relative; floating-point arithmetic is not exact."""
_FAILURE = '{"error": '
_SECONDS = 600.0

PROGRAM_LIMITS = SandboxLimits(seconds=_SECONDS)
"""What a program may take; it is held to time on the processor rather than on the wall, as many run side by side."""


@dataclass(frozen=True)
class Rerun:
    """What came of the programs of one trajectory.

    Attributes:
        trajectory: With the outputs of now; as it was, if there is a reason.
        programs: How many were run.
        reason: Why its outputs can't be trusted, worded so that equal causes have equal texts; None if they can.
    """

    trajectory: Trajectory
    programs: int
    reason: str | None = None


async def rerun_all(trajectories: Iterable[Trajectory], programs: ToolSource) -> AsyncIterator[Rerun]:
    """Runs the programs of each trajectory, side by side as the source allows; results come in their order.

    Args:
        trajectories: Those without a program come through as they are.
        programs: Has the tool ``python`` (`alpha_umi.tools.program`); every program begins anew.
    """
    waiting = iter(trajectories)
    while some := list(islice(waiting, _AT_ONCE)):
        for one in await asyncio.gather(*(_rerun(trajectory, programs) for trajectory in some)):
            yield one


async def _rerun(trajectory: Trajectory, programs: ToolSource) -> Rerun:
    calls = {
        call.id: call
        for message in trajectory.messages
        if isinstance(message, AssistantMessage)
        for call in message.tool_calls
        if call.name == PYTHON.name and not call.malformed
    }
    messages: list[Message] = []
    reason: str | None = None
    for message in trajectory.messages:
        if isinstance(message, ToolMessage) and message.tool_call_id in calls:
            now = await _run(calls[message.tool_call_id], programs)
            reason = reason or _difference(now, message.content)
            message = replace(message, content=now.text)
        messages.append(message)
    if reason is not None:
        return Rerun(trajectory, len(calls), reason)
    return Rerun(replace(trajectory, messages=tuple(messages)), len(calls))


async def _run(call: ToolCall, programs: ToolSource) -> Observation:
    return await execute(programs, call, timeout=math.inf, tools=[PYTHON])


def _difference(now: Observation, then: str) -> str | None:
    """How a program's output differs from what is written, in words."""
    if now.error is not None:
        return None if then.startswith(_FAILURE) else f"a program fails: {now.error}"
    if then.startswith(_FAILURE):
        return "a program runs whose failure is recorded"
    return None if _same(now.text.strip(), then.strip()) else "a program prints something else than is recorded"


def _same(now: str, then: str) -> bool:
    try:
        return now == then or math.isclose(float(now), float(then), rel_tol=_EQUAL)
    except ValueError:
        return False
