"""Calls tools safely: whatever the model wrote wrong, and whatever a tool did wrong, becomes an observation.

A turn's calls are first prepared (checked and confirmed, one by one), then performed (side by side where their source
allows it). An observation of a failure is ``{"error": "<kind>: <message>"}``. The kinds, beside those that a tool's own
`ToolError` brings along:

    malformed_call      the text is no call
    unknown_tool        there is no tool of that name (the nearest one is named)
    invalid_arguments   no JSON object, an unknown parameter, or against the tool's schema
    not_approved        a person had to confirm the call and did not
    timeout             no reply within the limit
    not_run             the run was stopped before the call had ended
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alpha_umi.errors import ToolError
from alpha_umi.tools.approval import Approval
from alpha_umi.tools.base import ToolSource, client_tools, ordered_tools, writing_tools
from alpha_umi.tools.text import observable
from alpha_umi.trajectory import Tool, ToolCall
from alpha_umi.validation import check_call

RESULT_BYTES = 64 * 1024
ERROR_BYTES = 4 * 1024
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Observation:
    """What the planner reads after a call.

    Attributes:
        text: The tool's reply, or the failure as JSON.
        error: Kind of the failure, or None.
        client: The call was not made, and ``text`` is empty: whoever runs the agent has to make it.
        repaired: What was made in place of what the caller wrote, or None if that was made as written.
    """

    text: str
    error: str | None = None
    client: bool = False
    repaired: ReadyCall | None = None

    @classmethod
    def failure(cls, error: ToolError) -> Observation:
        """The observation of a failure; its message is bounded and free of secrets."""
        message = observable(f"{error.kind}: {error}", ERROR_BYTES)
        return cls(json.dumps({"error": message}, ensure_ascii=False), error.kind)


@dataclass(frozen=True)
class ReadyCall:
    """A call that can be made and may be made.

    Attributes:
        name: Of the tool.
        arguments: They fit its schema.
        repaired: The caller wrote something else.
    """

    name: str
    arguments: dict[str, Any]
    repaired: bool = False

    def to_json(self) -> dict[str, Any]:
        """As a record keeps it beside what was written."""
        return {"name": self.name, "arguments": self.arguments}


Prepared = ReadyCall | Observation


def prepare(
    source: ToolSource,
    calls: Sequence[ToolCall],
    approval: Approval,
    tools: Sequence[Tool] | None = None,
    *,
    repair: bool = False,
) -> list[Prepared]:
    """Checks each call and has it confirmed; those that won't be made here have their observation already.

    Args:
        source: Where the tools are.
        calls: As the caller wrote them.
        approval: Which calls have to be confirmed, and by whom; asking blocks.
        tools: The tools the agent was shown; None takes all of the source.
        repair: Makes what a wrong call was to be, where that is plain; see `repair`. Not if the client is to make it.
    """
    shown = source.tools if tools is None else tools
    writing, client = writing_tools(source), client_tools(source)

    def prepared(call: ToolCall) -> Prepared:
        try:
            ready = _ready(call, shown, writing, client) if repair else ReadyCall(call.name, check_call(call, shown))
            if ready.name in client:
                return Observation("", client=True)
            approval.confirm(ready.name, ready.arguments, ready.name in writing)
        except ToolError as error:
            return Observation.failure(error)
        return ready

    return [prepared(call) for call in calls]


def _ready(call: ToolCall, shown: Sequence[Tool], writing: frozenset[str], client: frozenset[str]) -> ReadyCall:
    """The call as it is written, or else as it was meant; not if whoever runs the agent is to make it."""
    from alpha_umi.tools.repair import repaired  # it reads many formats, which takes a while to import

    if call.name in client:
        return ReadyCall(call.name, check_call(call, shown))
    name, arguments = repaired(call, [tool for tool in shown if tool.name not in client], writing)
    return ReadyCall(name, arguments, call.malformed or (name, arguments) != (call.name, call.parsed()))


async def perform(
    source: ToolSource,
    prepared: Sequence[Prepared],
    *,
    timeout: float,
    seconds: float = math.inf,
    result_bytes: int = RESULT_BYTES,
    cancelled: Callable[[], bool] | None = None,
) -> list[Observation]:
    """Makes the calls of a turn; never raises for what a tool did wrong. Observations come in the order of the calls.

    Args:
        source: Where the tools are.
        prepared: From `prepare`.
        timeout: Seconds each call has. A tool that blocks the event loop can't be stopped by this.
        seconds: Seconds all calls have together.
        result_bytes: Bound of a reply; of a longer one the head and the tail are kept.
        cancelled: Asked while calls are made; once it says so, they are stopped.

    Raises:
        Exception: Whatever the source raises that is no `ToolError`; the other calls are stopped.
    """
    observations: list[Prepared] = list(prepared)
    deadline = asyncio.get_running_loop().time() + seconds

    async def make_all(numbers: Sequence[int]) -> None:
        for number in numbers:
            ready = observations[number]
            assert isinstance(ready, ReadyCall)
            left = deadline - asyncio.get_running_loop().time()
            observations[number] = await _make(source, ready, min(timeout, left), result_bytes)

    queues = _queues(prepared, ordered_tools(source))
    await _finished({asyncio.ensure_future(make_all(queue)) for queue in queues}, cancelled)
    stopped = Observation.failure(ToolError("not_run", "the run was stopped before the call had ended"))
    return [made if isinstance(made, Observation) else stopped for made in observations]


async def execute(
    source: ToolSource,
    call: ToolCall,
    *,
    timeout: float,
    tools: Sequence[Tool] | None = None,
    approval: Approval | None = None,
    result_bytes: int = RESULT_BYTES,
) -> Observation:
    """Checks one call, makes it and returns the observation; see `prepare` and `perform`."""
    prepared = prepare(source, [call], approval or Approval(), tools)
    (observation,) = await perform(source, prepared, timeout=timeout, result_bytes=result_bytes)
    return observation


def _queues(prepared: Sequence[Prepared], in_order: frozenset[str]) -> list[list[int]]:
    """Numbers of the calls to make: those of one queue one after another, the queues side by side."""
    ready = [(number, call.name) for number, call in enumerate(prepared) if isinstance(call, ReadyCall)]
    ordered = [number for number, name in ready if name in in_order]
    alone = [[number] for number, name in ready if name not in in_order]
    return [ordered, *alone] if ordered else alone


async def _finished(tasks: set[asyncio.Future[None]], cancelled: Callable[[], bool] | None) -> None:
    """Waits for all tasks, until one raises, or until cancelled; none of them is left running."""
    waiting = tasks
    try:
        while waiting and not (cancelled is not None and cancelled()):
            poll = None if cancelled is None else _POLL_SECONDS
            done, waiting = await asyncio.wait(waiting, timeout=poll, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _make(source: ToolSource, call: ReadyCall, timeout: float, result_bytes: int) -> Observation:
    made = await _observed(source, call, timeout, result_bytes)
    return replace(made, repaired=call) if call.repaired else made


async def _observed(source: ToolSource, call: ReadyCall, timeout: float, result_bytes: int) -> Observation:
    try:
        if timeout <= 0:
            raise ToolError("not_run", "the run's time was over before the call could be made")
        async with asyncio.timeout(timeout):
            return Observation(observable(await source.call(call.name, call.arguments), result_bytes))
    except ToolError as error:
        return Observation.failure(error)
    except TimeoutError:
        return Observation.failure(ToolError("timeout", f"no reply within {timeout:g} seconds"))
