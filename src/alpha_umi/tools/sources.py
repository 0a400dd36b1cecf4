"""From what stands behind ``--tools`` to a tool source."""

from __future__ import annotations

from collections.abc import Sequence

from alpha_umi.errors import UserError
from alpha_umi.tools.base import ToolSource
from alpha_umi.tools.toolworld import ToolWorldSource
from alpha_umi.toolworld.open_world import OpenWorld


def open_source(specs: Sequence[str], query: str) -> ToolSource:
    """Opens the tools named on the command line.

    Args:
        specs: ``toolworld``, or ``toolworld:N`` for N tools to choose from.
        query: What the user asks first; ToolWorld offers the tools that fit it best.

    Raises:
        UserError: There is no such source.
    """
    if len(specs) != 1:
        raise UserError(f"--tools was given {len(specs)} times; one source at a time can be used")
    name, _, number = specs[0].partition(":")
    if name != "toolworld" or not (number.isdecimal() or not number):
        raise UserError(f"--tools {specs[0]!r}: no such source; give toolworld, or toolworld:N for N tools")
    count = int(number or 5)
    if not 1 <= count <= 20:
        raise UserError(f"--tools {specs[0]!r}: between 1 and 20 tools can be offered")
    return ToolWorldSource(OpenWorld(query, count=count))
