"""ToolWorld as a tool source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from alpha_umi.trajectory import Tool


class Callables(Protocol):
    """What is needed of a `toolworld.World`: its tools, and calling one."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that can be called."""
        ...

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Calls a tool; raises ToolError for a fault."""
        ...

    def snapshot(self) -> object:
        """The state as it is now."""
        ...

    def restore(self, snapshot: object) -> None:
        """Goes back to a snapshot."""
        ...


class ToolWorldSource:
    """The tools of one world. Calls of one turn happen in their order, as later ones may depend on earlier ones."""

    def __init__(self, world: Callables) -> None:
        self.world = world

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The world's tools."""
        return self.world.tools

    @property
    def in_order(self) -> frozenset[str]:
        """All of them."""
        return frozenset(tool.name for tool in self.tools)

    @property
    def reversible(self) -> frozenset[str]:
        """All of them."""
        return self.in_order

    def snapshot(self) -> object:
        """The world's state."""
        return self.world.snapshot()

    def restore(self, state: object) -> None:
        """Takes the world back to a snapshot of it."""
        self.world.restore(state)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Calls the world's tool.

        Raises:
            ToolError: A fault of the world.
        """
        return self.world.call(name, arguments)
