"""What tools come from.

A source has tools and calls them. What else there is to know of it, it may say by having one of these attributes; a
source without them writes nothing, runs everything itself, may be called side by side and needs no closing:

    writes      names of the tools that change something outside: a person confirms such a call
    client      names of the tools that nobody here executes: a call is handed out to whoever runs the agent
    in_order    names of the tools whose calls of one turn are made one after another, in their order
    reversible  names of the tools whose effects snapshot() and restore(state) can take back
    left_out    what the source has but can't offer as a tool, with the reason
    aclose()    frees what the source holds
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from alpha_umi.trajectory import Tool

WRITES_MARK = "__alpha_umi_writes__"
Function = TypeVar("Function", bound=Callable[..., Any])


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


@runtime_checkable
class _Writes(Protocol):
    @property
    def writes(self) -> frozenset[str]: ...


@runtime_checkable
class _Client(Protocol):
    @property
    def client(self) -> frozenset[str]: ...


@runtime_checkable
class _InOrder(Protocol):
    @property
    def in_order(self) -> frozenset[str]: ...


@runtime_checkable
class _GoesBack(Protocol):
    @property
    def reversible(self) -> frozenset[str]: ...

    def snapshot(self) -> object: ...

    def restore(self, state: object) -> None: ...


@runtime_checkable
class _LeavesOut(Protocol):
    @property
    def left_out(self) -> Mapping[str, str]: ...


@runtime_checkable
class _Closes(Protocol):
    async def aclose(self) -> None: ...


def writing_tools(source: ToolSource) -> frozenset[str]:
    """Names of the tools that change something outside."""
    return source.writes if isinstance(source, _Writes) else frozenset()


def client_tools(source: ToolSource) -> frozenset[str]:
    """Names of the tools that the source doesn't execute."""
    return source.client if isinstance(source, _Client) else frozenset()


def ordered_tools(source: ToolSource) -> frozenset[str]:
    """Names of the tools whose calls of one turn are made one after another."""
    return source.in_order if isinstance(source, _InOrder) else frozenset()


def reversible_tools(source: ToolSource) -> frozenset[str]:
    """Names of the tools whose effects can be taken back."""
    return source.reversible if isinstance(source, _GoesBack) else frozenset()


def left_out(source: ToolSource) -> Mapping[str, str]:
    """What the source has but can't offer as a tool, with the reason."""
    return source.left_out if isinstance(source, _LeavesOut) else {}


def snapshot(source: ToolSource) -> object:
    """The state of a source's reversible tools, for `restore`; None if it has none."""
    return source.snapshot() if isinstance(source, _GoesBack) else None


def restore(source: ToolSource, state: object) -> None:
    """Takes a source's reversible tools back to a snapshot of it, which can be used again."""
    if isinstance(source, _GoesBack):
        source.restore(state)


async def close(source: ToolSource) -> None:
    """Frees what a source holds, if it holds anything."""
    if isinstance(source, _Closes):
        await source.aclose()


def writes(function: Function) -> Function:
    """Decorator: this function of a tool module changes something outside, so a person confirms its calls."""
    setattr(function, WRITES_MARK, True)
    return function
