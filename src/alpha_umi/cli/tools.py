"""`umi tools`: what tool sources offer, and what of them can't be offered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi.cli.options import ApiOptions, spread, terminal

if TYPE_CHECKING:
    from rich.table import Table

    from alpha_umi.tools import CombinedSource

_FIRST = 3
_REASON_BYTES = 300


@spread
def list_tools(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="As behind --tools of `umi run`.")],
    query: Annotated[str, typer.Option(help="What toolworld is asked: it offers the tools that fit.")] = "",
    *,
    api: ApiOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the tools of sources: name, what a call does, description; and what is left out, with the reason."""
    from alpha_umi.tools import open_tools
    from alpha_umi.trajectory import json_text

    with open_tools(sources, query, api.options()) as opened:
        offered, left_out = _offered(opened.source), _readable(opened.source.left_out)
    if as_json:
        pairs = [{"name": name, "reason": reason} for name, reason in left_out.items()]
        typer.echo(json_text({"tools": offered, "left_out": pairs}))
        return
    console = terminal()
    console.print(_table(offered))
    if left_out:
        console.print(f"\nleft out: {len(left_out)}", highlight=False)
    for name, reason in left_out.items():
        console.print(f"  {name}: {reason}", style="dim", highlight=False, markup=False, soft_wrap=True)


def show_left_out(left_out: Mapping[str, str]) -> None:
    """Says on standard error how much sources could not offer, with the first three reasons, if anything."""
    console = terminal(stderr=True)
    lines = [f"{name}: {reason}" for name, reason in _readable(left_out).items()]
    if len(lines) > _FIRST:
        lines[_FIRST:] = [f"... and {len(lines) - _FIRST} more, which `umi tools SOURCE` lists"]
    if lines:
        lines.insert(0, f"{len(left_out)} of what the sources have can't be a tool and is left out")
    for line in lines:
        console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)


def _readable(left_out: Mapping[str, str]) -> dict[str, str]:
    """Names and reasons on one line each: foreign documents write them."""
    from alpha_umi.tools.text import observable

    return {
        " ".join(name.split()): " ".join(observable(reason, _REASON_BYTES).split()) for name, reason in left_out.items()
    }


def _offered(source: CombinedSource) -> list[dict[str, Any]]:
    writes, client = source.writes, source.client
    return [
        {
            "name": tool.name, "description": tool.description, "parameters": tool.parameters,
            "writes": tool.name in writes, "client": tool.name in client,
        }
        for tool in source.tools
    ]  # fmt: skip


def _table(offered: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from alpha_umi.tools.text import stripped

    table = Table("tool", "a call", "description", box=None, header_style="bold")
    for tool in offered:
        effect = "is handed out" if tool["client"] else "writes" if tool["writes"] else ""
        description = " ".join(stripped(tool["description"]).split())
        table.add_row(Text(stripped(tool["name"]), overflow="fold"), effect, Text(description))
    return table
