"""`umi reproduce`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpha_umi import compute
from alpha_umi.cli.options import terminal

if TYPE_CHECKING:
    from alpha_umi.studies.entries import Entry
    from alpha_umi.training.job import Progress


def reproduce(
    scale: Annotated[
        str, typer.Option(help="smoke | nano | qwen3-0.6b | qwen3-1.7b | qwen3-4b: backbones, data and instructions.")
    ] = "nano",
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of every system.")] = 3,
    out: Annotated[Path, typer.Option(help="Results and the report go there; what is there counts.")] = Path(
        "runs/reproduce"
    ),
    work: Annotated[Path | None, typer.Option(help="Run directories go there (OUT/work, if not given).")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="This system and what it needs; repeatable.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="List what there is to do, and do nothing.")] = False,
) -> None:
    """Train and evaluate every system of the paper's Table 1 and the controls; report what holds.

    A queue that can be stopped: called again, it goes on behind the last finished entry.
    """
    from alpha_umi.display import bars, training_bars
    from alpha_umi.evaluation.report import rich_table
    from alpha_umi.studies.entries import chosen_entries, study_entries
    from alpha_umi.studies.report import reproduction, tables, write_reproduction
    from alpha_umi.studies.runs import Study
    from alpha_umi.studies.scales import scale_of

    chosen = scale_of(scale)
    entries = study_entries(chosen, seeds)
    entries = chosen_entries(entries, only) if only else entries
    study = Study(chosen, entries, (work or out / "work") / scale, out / "runs")
    if plan:
        for entry in entries:
            done = "done " if study.finished(entry) else "to do"
            terminal().print(f"{done} {entry.name}: {entry.about}", markup=False, highlight=False, soft_wrap=True)
        return
    compute.use_all_cores()
    with bars(terminal(stderr=True)) as shown:
        told: dict[str, Callable[[Progress], None]] = {}

        def on_step(name: str, progress: Progress) -> None:
            if name not in told:
                told[name] = training_bars(shown, f"{name} ")
            told[name](progress)

        def on_entry(entry: Entry, done: bool) -> None:
            shown.update("study", entries.index(entry), len(entries), entry.name + (" (was there)" if done else ""))

        results = replace(study, on_step=on_step, on_progress=shown.update).run(on_entry)
        shown.update("study", len(entries), len(entries))
    about = {"command": shlex.join(["umi", *sys.argv[1:]]), "scale": scale, "seeds": seeds}
    name = f"reproduce-{scale}"
    report = reproduction(results, about)
    write_reproduction(out, name, report, results)
    for table in tables(report):
        terminal().print(rich_table(table))
    terminal().print(f"{out / name}.md, .html, .json", highlight=False)
