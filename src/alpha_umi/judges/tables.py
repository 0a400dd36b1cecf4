"""Figures of judges as tables for people, in percent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

Figures = Mapping[str, Any]


def pass_table(figures: Figures) -> Table:
    """A row a test set and system."""
    table = Table("set", "system", "pass", "95 %", "queries", "agreement", title=_title("pass", figures), **_STYLE)
    for name, systems in figures["sets"].items():
        for system, one in systems.items():
            agreement = one.get("agreement")
            table.add_row(
                name, system, *_rate(one["pass_rate"], one.get("std")), str(one["queries"]),
                "" if agreement is None else f"{100 * agreement:.1f}",
            )  # fmt: skip
    for system, average in figures["average"].items():
        table.add_row("average", system, *_rate(average), "", "")
    return table


def win_table(figures: Figures) -> Table:
    """A row a test set and candidate."""
    title = _title(f"against {figures['reference']}", figures)
    table = Table("set", "system", "win", "95 %", "tie", "lose", "queries", title=title, **_STYLE)
    rows = [(name, *item) for name, candidates in figures["sets"].items() for item in candidates.items()]
    for name, system, one in [*rows, *(("average", *item) for item in figures["average"].items())]:
        tie, lose = (_rate(one[key])[0] for key in ("tie_rate", "lose_rate"))
        table.add_row(name, system, *_rate(one["win_rate"]), tie, lose, str(one.get("queries", "")))
    return table


def panel_table(figures: Figures) -> Table:
    """A row a figure of the judge."""
    table = Table("of", "figure", "value", "95 %", title=figures["judge"], **_STYLE)
    for part in ("pass", "win"):
        for name, value in (figures[part] or {}).items():
            if isinstance(value, Mapping) and value.get("value") is not None:
                table.add_row(part, name.replace("_", " "), *_rate(value))
            elif isinstance(value, int):
                table.add_row(part, name, str(value), "")
    return table


_STYLE: dict[str, Any] = {"box": None, "header_style": "bold"}


def _title(what: str, figures: Figures) -> str:
    return f"{what}, {figures['mode']}, {figures.get('judge') or figures.get('checker')}"


def _rate(value: Any, std: float | None = None) -> tuple[str, str]:
    """A fraction and its interval, or its deviation over rounds, in percent."""
    if not isinstance(value, Mapping):
        return f"{100 * value:.1f}", "" if std is None else f"± {100 * std:.1f}"
    interval = value["ci95"]
    shown = "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
    return f"{100 * value['value']:.1f}", shown
