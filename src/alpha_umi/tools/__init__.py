"""Tool sources, and the one place that calls a tool."""

from alpha_umi.tools.base import ToolSource
from alpha_umi.tools.execute import Observation, execute
from alpha_umi.tools.sources import open_source
from alpha_umi.tools.toolworld import ToolWorldSource

__all__ = ["Observation", "ToolSource", "ToolWorldSource", "execute", "open_source"]
