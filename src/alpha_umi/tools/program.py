"""Programs as a tool: the agent writes Python, `sandbox` runs it, what it prints is the observation."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from alpha_umi.data.programs import PYTHON
from alpha_umi.errors import ToolError
from alpha_umi.tools.sandbox import Sandbox, SandboxError, open_sandbox


class ProgramSource:
    """The tool ``python``. It changes nothing outside, so nobody has to confirm its calls.

    Args:
        sandbox: Runs the programs.
        at_once: Programs at one time; others wait, and their time-out with them. None is one a processor.
    """

    tools = (PYTHON,)

    def __init__(self, sandbox: Sandbox, at_once: int | None = None) -> None:
        self._sandbox = sandbox
        self._room = asyncio.Semaphore(at_once or os.cpu_count() or 1)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Runs the program.

        Raises:
            ToolError: What the program did wrong (see `Sandbox.run`); ``died``, too, if the machine has no room for
                another sandbox now. That it can make one has been tried.
        """
        async with self._room:
            try:
                return (await self._sandbox.run(arguments["code"])).removesuffix("\n")
            except (SandboxError, OSError) as error:
                raise ToolError("died", "the sandbox could not be started") from error


async def open_programs() -> ProgramSource:
    """The tool, its sandbox tried.

    Raises:
        UserError: Programs can't be run safely on this platform.
    """
    return ProgramSource(await open_sandbox())
