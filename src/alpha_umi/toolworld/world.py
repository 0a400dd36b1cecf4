"""A world of executable tools: tables that calls read and change, and faults that happen on schedule."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alpha_umi.errors import ToolError
from alpha_umi.toolworld.catalogue import load_catalogue
from alpha_umi.toolworld.operations import execute
from alpha_umi.toolworld.tasks import Tables, Task
from alpha_umi.trajectory import Tool

_MESSAGES = {
    "timeout": "no reply in time",
    "server_error": "internal error 500",
    "unavailable": "the service is down",
    "not_authorised": "access denied",
}


def fault_text(error: ToolError) -> str:
    """The observation that stands for a tool's failure: ``{"error": "timeout: no reply in time"}``."""
    return json.dumps({"error": f"{error.kind}: {error}"}, ensure_ascii=False)


@dataclass(frozen=True)
class _Snapshot:
    tables: Tables
    calls: Mapping[str, int]


class World:
    """The state behind one task's tools.

    Everything that happens follows from the task and the calls made so far. A world is cheap to make, is not shared
    between episodes and is not thread-safe.

    Args:
        task: Where the tools, the tables and the planned faults come from; it is not changed.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._tables = copied(task.tables)
        self._calls: Counter[str] = Counter()
        self._names = {tool.name for tool in task.tools}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that can be called, in the order the agent is shown them."""
        return self._task.tools

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Calls a tool and returns its observation, compact JSON.

        Arguments that make no sense are answered with ``{"error": ...}``; nothing is changed then.

        Raises:
            ToolError: A planned fault: ``timeout``, ``server_error``, ``unavailable`` or ``not_authorised``.
        """
        api = load_catalogue().apis.get(name) if name in self._names else None
        if api is None:
            return json.dumps({"error": f"no tool named {name}"}, ensure_ascii=False)
        if not isinstance(arguments, Mapping):
            return json.dumps({"error": "the arguments must be an object"})
        self._calls[name] += 1
        for fault in self._task.faults:
            if fault.tool == name and fault.nth in (0, self._calls[name]):
                raise ToolError(fault.kind, _MESSAGES[fault.kind])
        return json.dumps(execute(api, self._tables, arguments, self._task.seed), ensure_ascii=False)

    def snapshot(self) -> object:
        """The state and the fault counters as they are now; opaque, for ``restore``."""
        return _Snapshot(copied(self._tables), dict(self._calls))

    def restore(self, snapshot: object) -> None:
        """Goes back to a snapshot of this world, which can be used again.

        Raises:
            TypeError: It is no snapshot of a World.
        """
        if not isinstance(snapshot, _Snapshot):
            raise TypeError(f"not a World snapshot: {type(snapshot).__name__}")
        self._tables = copied(snapshot.tables)
        self._calls = Counter(snapshot.calls)

    def state(self) -> dict[str, list[str]]:
        """What the checker compares: all rows, in no particular order. Reading calls and faults leave no trace."""
        return {name: sorted(map(_canonical, rows)) for name, rows in self._tables.items() if rows}


def _canonical(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False)


def copied(tables: Tables) -> Tables:
    """Tables of rows of their own."""
    return {name: [dict(row) for row in rows] for name, rows in tables.items()}
