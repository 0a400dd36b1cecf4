"""Tool sources, and the one place that calls a tool.

What is exported here is imported when it is first asked for: a worker process, which runs one module's functions, need
not load every kind of source.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alpha_umi.tools.approval import Approval, ApprovalPolicy
    from alpha_umi.tools.base import ToolSource, writes
    from alpha_umi.tools.combined import CombinedSource
    from alpha_umi.tools.execution import Observation, execute
    from alpha_umi.tools.source_list import OpenApiOptions
    from alpha_umi.tools.sources import open_sources, open_tools
    from alpha_umi.tools.toolworld import ToolWorldSource

__all__ = [
    "Approval",
    "ApprovalPolicy",
    "CombinedSource",
    "Observation",
    "OpenApiOptions",
    "ToolSource",
    "ToolWorldSource",
    "execute",
    "open_sources",
    "open_tools",
    "writes",
]
_HOMES = {
    "Approval": "approval", "ApprovalPolicy": "approval", "ToolSource": "base", "writes": "base",
    "CombinedSource": "combined", "Observation": "execution", "execute": "execution", "OpenApiOptions": "source_list",
    "open_sources": "sources", "open_tools": "sources", "ToolWorldSource": "toolworld",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found
