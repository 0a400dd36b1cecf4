"""What `umi reproduce` found: ``NAME.json``, ``NAME.md``, ``NAME.html`` and plots beside them."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alpha_umi.evaluation.plots import forest_plot, live_plot, static_plot
from alpha_umi.evaluation.tables import MISSING, Table, count, markdown_table, percent
from alpha_umi.studies.differences import IN_DOMAIN, METRICS, OUT_OF_DOMAIN, figure, win_rate
from alpha_umi.studies.relations import By, relations
from alpha_umi.studies.runs import Result
from alpha_umi.trajectory import atomic_write, write_json

_QUALITY = {
    "plan_acc": "Plan ACC", "act_em": "Act. EM", "hallu": "Hallu. ↓", "arg_f1": "Arg. F1", "rouge_l": "R-L",
    "pass_rate": "pass",
}  # fmt: skip
_DOMAINS = {"in domain": IN_DOMAIN, "out of domain": OUT_OF_DOMAIN}
PAPER: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "umi (the paper, 7B)": {
        "in domain": {"plan_acc": 0.8892, "act_em": 0.5894, "hallu": 0.0057, "arg_f1": 0.5224, "rouge_l": 0.4317},
        "out of domain": {"plan_acc": 0.8972, "act_em": 0.6047, "hallu": 0.0045, "arg_f1": 0.536, "rouge_l": 0.4626},
    },
    "single (the paper, 7B)": {"in domain": {"act_em": 0.5326}},
    "multi-one-stage (the paper, 7B)": {"in domain": {"act_em": 0.4511}},
}
"""Figures of the paper, at another scale and on other data: for the ordering, not for the values."""


def reproduction(results: Sequence[Result], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a report says, as plain data; ``about`` is scale, command, seeds and the like."""
    by = by_system(results)
    return {
        **about,
        "systems": {f"{system} @ {size}": _system(by, system, size) for system, size in by},
        "relations": [relation.to_json() for relation in relations(by)],
        "entries": [{key: one[key] for key in ("name", "fingerprint", "date", "seconds")} for one in results],
        "paper": PAPER,
    }


def by_system(results: Sequence[Result]) -> By:
    """Results by system and size, in the order of first appearance."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result["system"], result["size"]), []).append(result)
    return found


def _system(by: By, system: str, size: str) -> dict[str, Any]:
    runs = by[system, size]
    figures: dict[str, dict[str, Any]] = {}
    for domain, splits in _DOMAINS.items():
        for metric in METRICS:
            found = figure(runs, metric, splits)
            if found is not None:
                mean = {"value": found.value, "ci95": list(found.ci95), "seeds": found.seeds, "n": found.n}
                figures.setdefault(domain, {})[metric] = mean
    single = by.get(("single", size))
    wins = {domain: win_rate(single, runs, splits) for domain, splits in _DOMAINS.items()} if single else {}
    costs = [run["training"] for run in runs]
    keys = ("trajectories", "tokens_forwarded", "loss_tokens", "flops", "seconds")
    training = {key: sum(cost[key] for cost in costs) / len(costs) for key in keys}
    return {"about": runs[0]["about"], "figures": figures, "against_single": wins, "training": training}


def write_reproduction(folder: Path, name: str, report: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Writes the report in its three forms, and its plots.

    Raises:
        UserError: The folder can't be written to.
    """
    plots = {f"{name}-{kind}.png": image for kind, image in _plots(report, results).items() if image is not None}
    for path, image in plots.items():
        with atomic_write(folder / path, "wb") as file:
            file.write(image)
    write_json(folder / f"{name}.json", report)
    with atomic_write(folder / f"{name}.md") as file:
        file.write(_markdown(report, list(plots)))
    with atomic_write(folder / f"{name}.html") as file:
        file.write(_html(report, plots))


def tables(report: Mapping[str, Any]) -> list[Table]:
    """The report's tables."""
    return [*_domain_tables(report), _relation_table(report), _cost_table(report)]


def _domain_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    for domain in _DOMAINS:
        rows = []
        for name, system in report["systems"].items():
            figures = system["figures"].get(domain, {})
            cells = [percent(*_value(figures.get(metric))) for metric in _QUALITY]
            win = system["against_single"].get(domain)
            seeds = max((one["seeds"] for one in figures.values()), default=0)
            rows.append((name, *cells, _wins(win), count(seeds)))
        for name, figures in report["paper"].items():
            known = figures.get(domain, {})
            if known:
                rows.append((name, *(percent(known.get(metric)) for metric in _QUALITY), MISSING, MISSING))
        header = ("system", *_QUALITY.values(), "won : lost against single", "seeds")
        yield Table(f"{domain.capitalize()}, %", header, tuple(rows), names=1)


def _value(found: Mapping[str, Any] | None) -> tuple[float | None, Sequence[float] | None]:
    return (None, None) if found is None else (found["value"], found["ci95"])


def _wins(found: Mapping[str, float] | None) -> str:
    return MISSING if not found or not found["n"] else f"{100 * found['win']:.0f} : {100 * found['loss']:.0f}"


def _relation_table(report: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{one['better']} > {one['worse']}", one["size"], one["domain"], _QUALITY[one["metric"]],
            f"{100 * one['difference']:+.1f}", f"{100 * one['ci95'][0]:+.1f} to {100 * one['ci95'][1]:+.1f}",
            f"{one['p']:.3f}", one["verdict"] + ("" if one["claimed"] else " (control)"),
        )
        for one in report["relations"]
    ]  # fmt: skip
    header = ("relation", "size", "domain", "metric", "difference", "95 %", "sign test p", "verdict")
    return Table("What the paper says of its systems, and controls", header, tuple(rows), names=4)


def _cost_table(report: Mapping[str, Any]) -> Table:
    rows = [
        (name, system["about"], *_costs(system["training"])) for name, system in report["systems"].items()
    ]  # fmt: skip
    header = ("system", "what it is", "trajectories", "tokens forwarded", "FLOPs", "seconds")
    return Table("What training took, the mean over seeds", header, tuple(rows), names=2)


def _costs(cost: Mapping[str, float]) -> tuple[str, ...]:
    return (
        count(cost["trajectories"]), count(cost["tokens_forwarded"]), f"{cost['flops']:.3g}", count(cost["seconds"]),
    )  # fmt: skip


def _plots(report: Mapping[str, Any], results: Sequence[Result]) -> dict[str, bytes | None]:
    return {
        "forest": forest_plot(_rows_of_forest(report)),
        "static": static_plot(_mean_splits(results, "static")),
        "live": live_plot(_mean_splits(results, "live")),
    }


def _rows_of_forest(report: Mapping[str, Any]) -> list[tuple[str, float, Sequence[float]]]:
    return [
        (f"{one['better']} - {one['worse']}, {one['metric'].replace('_', ' ')} ({one['size']}, {one['domain']})",
         one["difference"], one["ci95"])
        for one in report["relations"]
        if one["metric"] in ("act_em", "pass_rate")
    ]  # fmt: skip


def _mean_splits(results: Sequence[Result], part: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The first size's systems with each split's figures, the mean over seeds; for plots, without intervals."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (system, size), runs in by_system(results).items():
        if size != results[0]["size"] or not runs[0][part]:
            continue
        for split in runs[0][part]:
            cells = [run[part][split] for run in runs if split in run[part]]
            found.setdefault(system, {})[split] = {
                key: sum(cell[key] for cell in cells) / len(cells)
                for key, value in cells[0].items()
                if isinstance(value, float) and all(isinstance(cell.get(key), float) for cell in cells)
            }
    return found


def _heading(report: Mapping[str, Any]) -> list[str]:
    facts = [f"{key}: {report[key]}" for key in ("command", "scale", "seeds", "machine", "date") if key in report]
    return [
        f"Reproduction at scale {report['scale']}",
        " · ".join(facts),
        "Means over training seeds and instructions; ± is half the width of a 95 % interval over both (crossed "
        "bootstrap). A relation holds if its interval lies on the better side of zero. Rows of the paper are of "
        "another scale and other data: compare orderings, not values.",
    ]


def _markdown(report: Mapping[str, Any], plots: Sequence[str]) -> str:
    title, facts, note = _heading(report)
    parts = [f"# {title}", facts, note]
    for table in tables(report):
        if table.rows:
            parts += [f"## {table.title}", markdown_table(table)]
    return "\n\n".join([*parts, *(f"![{name}]({name})" for name in plots)]) + "\n"


def _html(report: Mapping[str, Any], plots: Mapping[str, bytes]) -> str:
    """One file with everything in it, pictures too."""
    title, facts, note = map(html.escape, _heading(report))
    parts = [f"<h1>{title}</h1><p>{facts}</p><p>{note}</p>"]
    for table in tables(report):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
        )
        parts.append(f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>")
    for name, image in plots.items():
        data = base64.b64encode(image).decode("ascii")
        parts.append(f'<img alt="{html.escape(name)}" src="data:image/png;base64,{data}">')
    style = (
        "body{font:14px sans-serif;margin:2em}td,th{padding:.2em .7em;text-align:right}td:first-child{text-align:left}"
    )
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style>{''.join(parts)}\n"
