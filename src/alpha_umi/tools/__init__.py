"""Tool sources, and the one place that calls a tool."""

from alpha_umi.tools.approval import Approval, ApprovalPolicy
from alpha_umi.tools.base import ToolSource, writes
from alpha_umi.tools.combined import CombinedSource
from alpha_umi.tools.execute import Observation, execute
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
