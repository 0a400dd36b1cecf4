"""`umi eval compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpha_umi.cli.options import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from alpha_umi.evaluation.compare import Comparison, Unit
    from alpha_umi.evaluation.paired import Difference

_SHOWN = 10


def compare_evaluations(
    a: Annotated[Path, typer.Argument(help="A folder that --traces or the quickstart's evaluation left.")],
    b: Annotated[Path, typer.Argument(help="Another one, of the same instructions.")],
    json_out: Annotated[Path | None, typer.Option("--json", help="Write everything there.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", help="[SPLIT:]METRIC < NUMBER, of B less A; exit with 1 if it holds. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
) -> None:
    """Paired differences of two evaluations, B less A, and where B breaks what A solved.

    The tables show the paper's metrics; --json has the strict ones too.
    """
    from alpha_umi.evaluation.compare import compare
    from alpha_umi.evaluation.gate import failed, parse_condition
    from alpha_umi.trajectory import write_json

    conditions = [parse_condition(text) for text in fail_if or []]
    found = compare(a, b, seed)
    broken = failed(conditions, found)
    if json_out is not None:
        write_json(json_out, {"a": str(a), "b": str(b), **found.to_json(), "failed": broken})
    _show(found)
    for text in broken:
        terminal(stderr=True).print(f"failed: {text}", style="red", markup=False, soft_wrap=True)
    if broken:
        raise typer.Exit(1)


def _show(found: Comparison) -> None:
    console = terminal()
    for table in (
        _table("B less A by split", "split", found.splits),
        _table("by decision and kind of instruction", "kind", found.kinds),
        _table("Act. EM by tool, the worst first", "tool", {n: {"": d} for n, d in list(found.tools.items())[:_SHOWN]}),
    ):
        if table.rows:
            console.print(table)
    _list("B breaks what A solved", found.broken)
    _list("B solves what A did not", found.repaired)
    if found.unpaired:
        console.print(f"{found.unpaired} steps and episodes are in one of the two only; they are left out")


def _table(title: str, what: str, parts: Mapping[str, Mapping[str, Difference]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(what, overflow="fold")
    table.add_column("" if what == "tool" else "metric", no_wrap=True)
    for column in ("A", "B", "B - A", "95 %", "+ : -", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, found in parts.items():
        shown = [(metric, one) for metric, one in found.items() if not metric.startswith("strict.")]
        for number, (metric, one) in enumerate(shown):
            table.add_row("" if number else name, metric.replace("generated_", ""), *_cells(metric, one))
    return table


def _cells(metric: str, one: Difference) -> list[str]:
    """Fractions in percent; calls and tokens as they are."""
    scale, form = (1.0, ".1f") if metric in ("calls", "generated_tokens") else (100.0, ".1f")
    low, high = (scale * bound for bound in one.ci95)
    return [
        f"{scale * one.a:{form}}", f"{scale * one.b:{form}}", f"{scale * one.difference:+{form}}",
        f"{low:+{form}} to {high:+{form}}", f"{one.better} : {one.worse}", f"{one.p:.3f}",
    ]  # fmt: skip


def _list(title: str, units: Sequence[Unit]) -> None:
    console = terminal()
    console.print(f"{title}: {len(units)}")
    for unit in units[:_SHOWN]:
        console.print(f"  {unit.group} ({unit.kind}) {unit.instruction}", markup=False, highlight=False, soft_wrap=True)
    if len(units) > _SHOWN:
        console.print(f"  … and {len(units) - _SHOWN} more (--json lists them all)")
