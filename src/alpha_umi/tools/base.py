"""What tools come from."""

from __future__ import annotations

from typing import Any, Protocol

from alpha_umi.trajectory import Tool


class ToolSource(Protocol):
    """A set of tools that can be called."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, in the order the agent is shown them."""
        ...

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Calls a tool of the source with arguments that fit its schema; returns what the agent is to read.

        Raises:
            ToolError: The tool failed; the run goes on. Anything else that is raised ends the run.
        """
        ...
