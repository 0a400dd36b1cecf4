"""A run's report: ``report.json`` (the data), ``report.md`` (for people) and its plots, and tables for the terminal.

The input is the dictionary that is written as ``report.json``; everything else is made from it and from the training
logs. Figures in JSON are fractions in [0, 1]; tables and plots show percent. Keys that are missing leave their section
out: the report shows what there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpha_umi.evaluation.plots import live_plot, loss_plot, static_plot
from alpha_umi.evaluation.tables import Table, all_tables, markdown_table
from alpha_umi.evaluation.traces import fenced, trace_markdown
from alpha_umi.evaluation.training_log import read_losses
from alpha_umi.trajectory import Trajectory, atomic_write, write_json

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_PLOTS = {
    "static.png": "Static metrics by split",
    "live.png": "Live pass rate by split",
    "loss.png": "Training loss by role and stage",
}
_INTERVALS = (
    "± is half the width of the 95 % percentile bootstrap interval, resampled over trajectories (static) or tasks "
    "(live) of one trained model: it says nothing about other training seeds, and ± 0.0 only means that all of them "
    "agreed."
)
_COMPARISONS = {
    "equal compute": (
        "**Equal compute**: the systems were given the same training FLOPs, forward and backward, counted over all "
        "models; they did not see the same amount of data."
    ),
    "equal data": (
        "**Equal data**: every system saw the same trajectories equally often per stage; they did not take the same "
        "compute."
    ),
}
_UNMATCHED = (
    "The systems were matched neither for data nor for compute, as far as this report knows: a difference between "
    "them is no evidence for a method."
)
# Beyond this ratio of FLOPs, "equal" is not what was measured.
_EQUAL_WITHIN = 1.05


def write_report(directory: Path, report: Mapping[str, Any], metrics_jsonl: Mapping[str, Path]) -> None:
    """Writes ``report.json``, ``report.md`` and the PNG plots, each atomically.

    Args:
        directory: Is made where it is missing; files of an earlier report are replaced.
        report: What is written as ``report.json``.
        metrics_jsonl: Training logs, by the system a line belongs to where it does not say.

    Raises:
        DataError: A training log can't be read.
        UserError: The directory can't be written to.
    """
    systems = report.get("systems", {})
    plots = {
        "static.png": static_plot({name: parts.get("static") or {} for name, parts in systems.items()}),
        "live.png": live_plot({name: parts.get("live") or {} for name, parts in systems.items()}),
        "loss.png": loss_plot(read_losses(metrics_jsonl)),
    }
    drawn = {name: image for name, image in plots.items() if image is not None}
    for name, image in drawn.items():
        with atomic_write(directory / name, "wb") as file:
            file.write(image)
    write_json(directory / "report.json", report)
    with atomic_write(directory / "report.md") as file:
        file.write(report_markdown(report, list(drawn)))


def report_markdown(report: Mapping[str, Any], plots: list[str]) -> str:
    """The report for people; ``plots`` names the PNG files beside it."""
    title = " and ".join(report.get("systems", {})) or "no system"
    parts = [f"# Report: {title}", *_provenance(report), *_comparison(report)]
    tables = all_tables(report)
    if tables:
        parts.append(_INTERVALS)
    for table in tables:
        parts += [f"## {table.title}", markdown_table(table)]
    if plots:
        parts.append("## Plots")
        parts += [f"![{_PLOTS[name]}]({name})" for name in plots]
    return "\n\n".join([*parts, *_totals(report), *_example(report)]) + "\n"


def rich_tables(report: Mapping[str, Any]) -> list[RichTable]:
    """The same tables for the terminal."""
    return [rich_table(table) for table in all_tables(report)]


def rich_table(table: Table) -> RichTable:
    """A table for the terminal; a line is left where the first column changes."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, name in enumerate(table.header):
        text = number < table.names
        rich.add_column(Text(name), justify="left" if text else "right", no_wrap=text)
    previous = None
    for row in table.rows:
        group = row[0] or previous
        if previous is not None and group != previous and table.names > 1:
            rich.add_section()
        previous = group
        rich.add_row(*map(Text, row))
    return rich


def _comparison(report: Mapping[str, Any]) -> Iterator[str]:
    systems = report.get("systems", {})
    if len(systems) < 2:
        return
    kind = str(report.get("comparison") or "").strip()
    normal = kind.lower().replace("-", " ").replace("_", " ")
    yield f"{_COMPARISONS.get(normal) or kind or _UNMATCHED}{_measured_compute(systems, normal)}"


def _measured_compute(systems: Mapping[str, Any], kind: str) -> str:
    """What was measured, whatever the comparison is called."""
    measured = {name: (parts.get("training") or {}).get("flops") for name, parts in systems.items()}
    flops: dict[str, float] = {name: value for name, value in measured.items() if value}
    if len(flops) < len(measured):
        return ""
    first = next(iter(flops.values()))
    ratios = ", ".join(f"`{name}` {value / first:.2f}" for name, value in flops.items())
    text = f" Training FLOPs, relative to the first: {ratios}."
    if kind == "equal compute" and max(flops.values()) > _EQUAL_WITHIN * min(flops.values()):
        text += " **They differ by more than 5 %, so this comparison is not quite one of equal compute.**"
    return text


def _provenance(report: Mapping[str, Any]) -> Iterator[str]:
    lines = []
    for key in ("command", "seed", "date", "machine", "versions"):
        if report.get(key) is not None:
            value = ", ".join(f"{name}: {text}" if name else str(text) for name, text in _flat(report[key]))
            lines.append(f"- {key}: " + (f"`{value}`" if key == "command" and "`" not in value else value))
    if lines:
        yield "\n".join(lines)


def _totals(report: Mapping[str, Any]) -> Iterator[str]:
    for key, title in (("seconds_by_part", "Seconds"), ("tokens", "Tokens trained on")):
        if report.get(key) is not None:
            rows = [f"| {name or 'all'} | {_number(value)} |" for name, value in _flat(report[key])]
            yield f"## {title}\n\n| | |\n| --- | ---: |\n" + "\n".join(rows)


def _example(report: Mapping[str, Any]) -> Iterator[str]:
    example = report.get("example")
    if not example:
        return
    yield "## One instruction, from query to answer"
    trajectory = example.get("trajectory")
    if trajectory is None:
        yield fenced(json.dumps(example, ensure_ascii=False, indent=2), limit=6000)
        return
    yield trace_markdown(Trajectory.from_json(trajectory if isinstance(trajectory, str) else json.dumps(trajectory)))
    facts = [f"{key.replace('_', ' ')}: {example[key]}" for key in ("system", "stop_reason", "steps") if key in example]
    if facts:
        yield "; ".join(facts) + "."


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries with their dotted names; a bare value has the name it was given."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
