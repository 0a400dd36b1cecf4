"""The report's tables as plain text cells, once for Markdown and for the terminal.

Fractions are shown in percent with ± 95 %, the systems of a split below each other.
A figure that the report does not hold is shown as –, never as 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alpha_umi.evaluation.plots import split_names

MISSING = "–"
_STATIC = {
    "plan_acc": "Plan ACC",
    "act_em": "Act. EM",
    "hallu": "Hallu. ↓",
    "arg_f1": "Arg. F1",
    "rouge_l": "R-L",
}
_MEANS = {
    "mean_steps": "steps",
    "mean_calls": "calls",
    "mean_generated_tokens": "tokens written",
    "mean_prefill_tokens": "tokens read",
}
_COUNTED = ("mean_generated_tokens",)
"""Means that are shown with their interval; the report has those of all."""

_COSTS = {
    "trajectories": "trajectories",
    "tokens_forwarded": "tokens forwarded",
    "loss_tokens": "loss tokens",
    "flops": "FLOPs",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Table:
    """A titled table; every row has as many cells as the header, the first ``names`` columns are text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 2


def all_tables(report: Mapping[str, Any]) -> list[Table]:
    """Every table that the report has data for."""
    systems = report.get("systems", {})
    tables = [static_table(systems), live_table(systems), kind_table(systems), stop_table(systems), cost_table(systems)]
    return [table for table in tables if table.rows]


def static_table(systems: Mapping[str, Any]) -> Table:
    """The five static metrics of each split and system."""
    header = ("split", "system", *_STATIC.values(), "steps")
    rows = []
    for split, system, scores in _by_split(systems, "static"):
        cells = [percent(scores.get(metric), scores.get("ci95", {}).get(metric)) for metric in _STATIC]
        rows.append((split, system, *cells, count(scores.get("n", {}).get("plan_acc"))))
    return Table("Static evaluation, %", header, tuple(rows))


def live_table(systems: Mapping[str, Any]) -> Table:
    """Pass rate and effort of each split and system; effort is the mean an episode, over all branches."""
    header = ("split", "system", "pass rate", "episodes", *_MEANS.values())
    rows = []
    for split, system, scores in _by_split(systems, "live"):
        intervals = scores.get("ci95_means", {})
        means = [_mean(scores.get(key), intervals.get(key) if key in _COUNTED else None) for key in _MEANS]
        rate = percent(scores.get("pass_rate"), scores.get("ci95"))
        rows.append((split, system, rate, count(scores.get("episodes")), *means))
    return Table("Live evaluation, % solved", header, tuple(rows))


def kind_table(systems: Mapping[str, Any]) -> Table:
    """Pass rate of each kind of instruction, over all splits."""
    totals: dict[str, dict[str, tuple[float, float]]] = {}
    for _, system, scores in _by_split(systems, "live"):
        for kind, part in scores.get("by_kind", {}).items():
            episodes, solved = totals.setdefault(kind, {}).get(system, (0.0, 0.0))
            totals[kind][system] = (episodes + part["episodes"], solved + part["episodes"] * part["pass_rate"])
    rows = []
    for kind, parts in sorted(totals.items()):
        cells = [f"{100 * solved / n:.1f} (of {n:.0f})" if n else MISSING for n, solved in _each(parts, systems)]
        rows.append((kind, *cells))
    return Table("Live pass rate by kind of instruction, all splits, %", ("kind", *systems), tuple(rows), names=1)


def stop_table(systems: Mapping[str, Any]) -> Table:
    """Why episodes ended, over all splits."""
    totals: dict[str, dict[str, int]] = {}
    for _, system, scores in _by_split(systems, "live"):
        for reason, episodes in scores.get("stop_reasons", {}).items():
            counts = totals.setdefault(reason, {})
            counts[system] = counts.get(system, 0) + episodes
    rows = tuple((reason, *(count(parts.get(name, 0)) for name in systems)) for reason, parts in totals.items())
    return Table("Stop reasons, all splits, episodes", ("stop reason", *systems), rows, names=1)


def cost_table(systems: Mapping[str, Any]) -> Table:
    """What training each system took, in all and by stage."""
    rows = []
    for system, parts in systems.items():
        training = parts.get("training") or {}
        costs = {"all": training, **{k: v for k, v in (training.get("stages") or {}).items() if isinstance(v, Mapping)}}
        for stage, cost in costs.items():
            if any(key in cost for key in _COSTS):
                first = system if stage == "all" else ""
                rows.append((first, stage, *(_cost(key, cost.get(key)) for key in _COSTS)))
    return Table("Training cost", ("system", "stage", *_COSTS.values()), tuple(rows))


def markdown_table(table: Table) -> str:
    """A Markdown table: text columns on the left, figures to the right."""
    rule = ["---"] * table.names + ["---:"] * (len(table.header) - table.names)
    lines = [table.header, rule, *table.rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def percent(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A fraction in percent, with half the width of its 95 % interval."""
    if value is None:
        return MISSING
    half = "" if interval is None else f" ± {50 * (interval[1] - interval[0]):.1f}"
    return f"{100 * value:.1f}{half}"


def _mean(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.1f}" + ("" if interval is None else f" ± {(interval[1] - interval[0]) / 2:,.1f}")


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return MISSING if value is None else f"{value:,.0f}"


def _cost(key: str, value: float | None) -> str:
    return f"{value:.3g}" if key == "flops" and value is not None else count(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _each(parts: Mapping[str, tuple[float, float]], systems: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    yield from (parts.get(system, (0.0, 0.0)) for system in systems)


def _by_split(systems: Mapping[str, Any], part: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields split, system and scores, split by split, so that the systems stand below each other."""
    results = {system: parts.get(part) or {} for system, parts in systems.items()}
    for split in split_names(results):
        for system, scores in results.items():
            if split in scores:
                yield split, system, scores[split]
