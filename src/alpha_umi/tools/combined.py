"""Several tool sources as one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from alpha_umi.errors import ToolError
from alpha_umi.tools.base import (
    ToolSource,
    client_tools,
    close,
    left_out,
    ordered_tools,
    restore,
    reversible_tools,
    snapshot,
    writing_tools,
)
from alpha_umi.tools.names import unique_name
from alpha_umi.trajectory import Tool, json_text

_Route = tuple[ToolSource, str]


class CombinedSource:
    """The tools of several sources, in their order, under names that are unique.

    A name that an earlier tool has gets a number (``search``, ``search_2``). Where a source's list of tools changes,
    so does this one. Calls that a source wants in order are in order with those of other such sources too.
    """

    def __init__(self, sources: Sequence[ToolSource]) -> None:
        self._sources = tuple(sources)
        self._listed: tuple[tuple[Tool, ...], ...] | None = None
        self._tools: tuple[Tool, ...] = ()
        self._routes: dict[str, _Route] = {}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools of all sources."""
        self._update()
        return self._tools

    @property
    def writes(self) -> frozenset[str]:
        """Names of the tools that change something."""
        return self._names(writing_tools)

    @property
    def client(self) -> frozenset[str]:
        """Names of the tools without an executor."""
        return self._names(client_tools)

    @property
    def in_order(self) -> frozenset[str]:
        """Names of the tools whose calls are made one after another."""
        return self._names(ordered_tools)

    @property
    def reversible(self) -> frozenset[str]:
        """Names of the tools whose effects can be taken back."""
        return self._names(reversible_tools)

    @property
    def left_out(self) -> dict[str, str]:
        """What the sources can't offer, with the reasons; a name that an earlier one has gets a number."""
        merged: dict[str, str] = {}
        for source in self._sources:
            for name, reason in left_out(source).items():
                numbered = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
                merged[next(one for one in numbered if one not in merged)] = reason
        return merged

    def snapshot(self) -> tuple[object, ...]:
        """The state of every source that can go back."""
        return tuple(snapshot(source) for source in self._sources)

    def restore(self, state: object) -> None:
        """Takes every source that can go back to a snapshot."""
        assert isinstance(state, tuple)
        for source, own in zip(self._sources, state, strict=True):
            restore(source, own)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Calls the tool in its source.

        Raises:
            ToolError: The tool failed, or its source no longer has it.
        """
        self._update()
        if name not in self._routes:
            raise ToolError("unknown_tool", f"the tool {name!r} is no longer offered")
        source, own_name = self._routes[name]
        return await source.call(own_name, arguments)

    async def aclose(self) -> None:
        """Closes every source, the last first, also when closing one of them fails."""
        async with AsyncExitStack() as stack:
            for source in self._sources:
                stack.push_async_callback(close, source)

    def _names(self, of: Callable[[ToolSource], frozenset[str]]) -> frozenset[str]:
        self._update()
        marked = [of(source) for source in self._sources]
        by_source = dict(zip(map(id, self._sources), marked, strict=True))
        return frozenset(name for name, (source, own_name) in self._routes.items() if own_name in by_source[id(source)])

    def _update(self) -> None:
        listed = tuple(source.tools for source in self._sources)
        if listed == self._listed:
            return
        tools: list[Tool] = []
        routes: dict[str, _Route] = {}
        for source, own in zip(self._sources, listed, strict=True):
            for tool in own:
                name = unique_name(tool.name, routes)
                routes[name] = (source, tool.name)
                tools.append(tool if name == tool.name else _renamed(tool, name))
        self._listed, self._tools, self._routes = listed, tuple(tools), routes


def _renamed(tool: Tool, name: str) -> Tool:
    return Tool(json_text({**tool.function, "name": name}), tool.extra)
