"""Calls a tool safely: whatever the model wrote wrong, and whatever the tool did wrong, becomes an observation.

An observation of a failure is ``{"error": "<kind>: <message>"}``. The kinds, beside those that a tool's own
`ToolError` brings along:

    malformed_call      the text is no call
    unknown_tool        there is no tool of that name (the nearest one is named)
    invalid_arguments   no JSON object, an unknown parameter, or against the tool's schema
    timeout             no reply within the limit
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from alpha_umi.errors import ToolError
from alpha_umi.tools.base import ToolSource
from alpha_umi.trajectory import Tool, ToolCall
from alpha_umi.validation import check_call


@dataclass(frozen=True)
class Observation:
    """What the planner reads after a call.

    Attributes:
        text: The tool's reply, or the failure as JSON.
        error: Kind of the failure, or None.
    """

    text: str
    error: str | None = None

    @classmethod
    def failure(cls, error: ToolError) -> Observation:
        """The observation of a failure."""
        return cls(json.dumps({"error": f"{error.kind}: {error}"}, ensure_ascii=False), error.kind)


async def execute(
    source: ToolSource, call: ToolCall, *, timeout: float, tools: Sequence[Tool] | None = None
) -> Observation:
    """Checks a call, makes it and returns the observation; never raises for what a model or a tool did wrong.

    Args:
        source: Where the tool is.
        call: As the caller wrote it.
        timeout: Seconds the tool has. A tool that blocks the event loop can't be stopped by this.
        tools: The tools the agent was shown; None takes all of the source.
    """
    try:
        arguments = check_call(call, source.tools if tools is None else tools)
        async with asyncio.timeout(timeout):
            return Observation(await source.call(call.name, arguments))
    except ToolError as error:
        return Observation.failure(error)
    except TimeoutError:
        return Observation.failure(ToolError("timeout", f"no reply within {timeout:g} seconds"))
