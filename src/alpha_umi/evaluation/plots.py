"""The report's plots: loss a role and stage, static metrics a split, pass rate a split.

Each function returns the PNG's bytes, or None where there is nothing to draw. Only ``Figure`` objects with the Agg
canvas are used: no pyplot, so no global state, no display and no figure left open.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alpha_umi.evaluation.training_log import Losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for the common kinds of colour blindness.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
ROLE_COLORS = {"planner": "#0072B2", "caller": "#D55E00", "summarizer": "#009E73", "assistant": "#CC79A7"}
STATIC_METRICS = {
    "plan_acc": "Plan ACC",
    "act_em": "Act. EM",
    "arg_f1": "Arg. F1",
    "rouge_l": "ROUGE-L",
    "hallu": "Hallu. (lower is better)",
}
_INK, _GRID = "#333333", "#DDDDDD"
_SMOOTH_FROM = 40  # points; shorter curves are drawn as they are

Split = Mapping[str, Any]
Systems = Mapping[str, Mapping[str, Split]]
"""Scores by system and split."""


def loss_plot(losses: Losses) -> bytes | None:
    """Loss against step: one panel a system and stage, one line a role."""
    panels = list(dict.fromkeys((system, stage) for system, stage, _ in losses))
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(4.1 * columns + 0.4, 3.1 * rows + 0.8)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (system, stage) in zip(grid.flat, panels, strict=False):
        _style(axes, f"{system}: {stage} stage")
        for (_, _, role), curve in ((k, c) for k, c in losses.items() if k[:2] == (system, stage)):
            _curve(axes, curve, role)
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    values = [value for curve in losses.values() for value in curve.values() if value > 0]
    if values and max(values) > 20 * min(values):
        grid[0][0].set_yscale("log")
        grid[0][0].yaxis.set_major_formatter("{x:g}")
    for row in grid:
        row[0].set_ylabel("loss (nats a token)")
    figure.suptitle("Training loss by role and stage", fontsize=12, color=_INK)
    return _png(figure)


def static_plot(systems: Systems) -> bytes | None:
    """The five static metrics: one panel a metric, one group of bars a split, one colour a system."""
    splits = split_names(systems)
    if not splits:
        return None
    figure = _figure(max(9.0, 1.35 * len(splits) + 4.5), 6.4)
    panels = list(figure.subplots(2, 3).flat)
    for axes, (metric, title) in zip(panels, STATIC_METRICS.items(), strict=False):
        _style(axes, title)
        _bars(axes, systems, splits, lambda scores, m=metric: (scores.get(m), scores.get("ci95", {}).get(m)))
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].axis("off")
    panels[-1].legend(handles, labels, loc="center", frameon=False, fontsize=10, labelcolor=_INK)
    figure.suptitle("Static metrics by split (gold history), with 95 % intervals", fontsize=12, color=_INK)
    return _png(figure)


def live_plot(systems: Systems) -> bytes | None:
    """Pass rate: one group of bars a split, one colour a system."""
    splits = split_names(systems)
    if not splits:
        return None
    figure = _figure(max(6.0, 1.3 * len(splits) + 1.6), 4.0)
    axes = figure.subplots()
    _style(axes, "Live pass rate by split, with 95 % intervals")
    _bars(axes, systems, splits, lambda scores: (scores.get("pass_rate"), scores.get("ci95")), labelled=True)
    axes.set_ylabel("episodes solved")
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _png(figure)


def forest_plot(rows: Sequence[tuple[str, float, Sequence[float]]]) -> bytes | None:
    """Differences with their intervals, one a line: (what, value, (low, high)), as fractions."""
    if not rows:
        return None
    figure = _figure(8.5, 0.28 * len(rows) + 1.2)
    axes = figure.subplots()
    _style(axes, "Differences, percentage points (95 %)")
    axes.axvline(0, color="#999999", linewidth=0.8)
    for at, (_, value, (low, high)) in enumerate(reversed(rows)):
        color = COLORS[0] if low > 0 else COLORS[5] if high < 0 else "#888888"
        axes.plot((100 * low, 100 * high), (at, at), color=color, linewidth=1.4)
        axes.plot(100 * value, at, "o", color=color, markersize=4)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)], fontsize=7)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    return _png(figure)


def lengths_plot(lengths: Mapping[str, Sequence[int]]) -> bytes | None:
    """Histograms of what `alpha_umi.data.stats.Stats.values` holds: tools, steps and tokens a trajectory."""
    panels = {name: values for name, values in lengths.items() if values}
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(3.6 * columns + 0.4, 2.6 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, values) in zip(grid.flat, panels.items(), strict=False):
        _style(axes, f"{name.replace('_', ' ')} (median {statistics.median(values):g})")
        span = max(values) - min(values)
        axes.hist(values, bins=span + 1 if span < 30 else 30, color=COLORS[0])
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    figure.suptitle("Trajectories by length", fontsize=12, color=_INK)
    return _png(figure)


def split_names(systems: Systems) -> list[str]:
    """Every split that some system has, in the order of first appearance."""
    return list(dict.fromkeys(split for splits in systems.values() for split in splits))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(labelsize=8, colors=_INK, length=3)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _curve(axes: Axes, curve: Mapping[int, float], role: str) -> None:
    steps, values = list(curve), list(curve.values())
    color = ROLE_COLORS.get(role, _INK)
    if len(values) < _SMOOTH_FROM:
        axes.plot(steps, values, color=color, linewidth=1.6, label=role, marker="o" if len(values) < 8 else None)
        return
    axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.25)
    axes.plot(steps, _smoothed(values), color=color, linewidth=1.8, label=role)


def _smoothed(values: Sequence[float]) -> list[float]:
    """A running mean over a window of 5 % of the points, so that a curve shows its trend."""
    window = max(3, len(values) // 20)
    half = window // 2
    windows = (values[max(0, at - half) : at + half + 1] for at in range(len(values)))
    return [sum(part) / len(part) for part in windows]


def _bars(axes: Axes, systems: Systems, splits: Sequence[str], score: Any, labelled: bool = False) -> None:
    """Draws grouped bars in percent; ``score(scores)`` gives the fraction and its interval, either may be None."""
    width = 0.8 / len(systems)
    scored = False
    for number, (system, results) in enumerate(systems.items()):
        places, heights, low, high = [], [], [], []
        for at, split in enumerate(splits):
            value, interval = score(results.get(split, {}))
            if value is None:
                continue
            bounds = interval or (value, value)
            places.append(at + (number - (len(systems) - 1) / 2) * width)
            heights.append(100 * value)
            low.append(100 * max(0.0, value - bounds[0]))
            high.append(100 * max(0.0, bounds[1] - value))
        scored = scored or bool(heights)
        style = {"ecolor": "#444444", "elinewidth": 1.0, "capsize": 2.0}
        color = COLORS[number % len(COLORS)]
        axes.bar(places, heights, 0.92 * width, yerr=[low, high], error_kw=style, color=color, label=system)
        for x, y, above in zip(places, heights, high, strict=True) if labelled else ():
            axes.annotate(f"{y:.0f}", (x, y + above), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    if not scored:
        axes.text(0.5, 0.5, "no step scored", transform=axes.transAxes, ha="center", color=_INK, fontsize=9)
    axes.set_xticks(range(len(splits)), splits, rotation=0 if labelled or len(splits) < 4 else 30)
    # Where all bars stay small the axis follows them; the room above 100 is for caps and numbers.
    top = axes.get_ylim()[1]
    axes.set_ylim(0, max(5.0, top) if top < 30 else 104)
    if top >= 30:
        axes.set_yticks(range(0, 101, 20))
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.tick_params(axis="x", length=0)
    axes.margins(x=0.02)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
