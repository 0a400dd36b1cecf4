"""`umi quickstart` and `umi train`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi import compute
from alpha_umi.cli.options import Instructions, Variant, terminal
from alpha_umi.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console


def quickstart(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/quickstart"),
    minutes: Annotated[float | None, typer.Option(help="Training time without evaluation [default: 8].")] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from random weights.")] = False,
    instructions: Instructions = None,
    seed: Annotated[int, typer.Option(help="Data order and initial weights.")] = 0,
) -> None:
    """Train the three roles, evaluate them, write a report and solve one instruction before your eyes."""
    from alpha_umi.display import bars, training_bars
    from alpha_umi.evaluation.report import rich_tables
    from alpha_umi.evaluation.toolworld_suite import Suite
    from alpha_umi.quickstart import DEFAULT_MINUTES, Quickstart, finish_report, run_quickstart

    plan = Quickstart(
        out, DEFAULT_MINUTES if minutes is None else minutes, from_scratch, Suite.default(instructions), seed
    )
    compute.use_all_cores()
    console = terminal()
    with bars(console) as shown:
        trained = {name: training_bars(shown, f"{name} ") for name in ("umi", "single-multitask")}
        report = run_quickstart(
            plan, lambda system, progress: trained[system](progress), shown.update, shlex.join(["umi", *sys.argv[1:]])
        )
    console.rule("One instruction, solved")
    finish_report(plan, report, _example(console, out))
    for table in rich_tables(report):
        console.print(table)
    console.print(f"report: {out / 'report.md'}   figures: {out / 'report.json'}   plots: {out}/*.png")


def _example(console: Console, run: Path) -> dict[str, Any]:
    """Solves one ToolWorld instruction of two calls, whatever comes of it."""
    from alpha_umi.agent import Episode, run_one
    from alpha_umi.display import agent_display
    from alpha_umi.engines.load import open_engine
    from alpha_umi.tools import ToolWorldSource
    from alpha_umi.toolworld import World, make_tasks
    from alpha_umi.trajectory import UserMessage

    task = next(task for task in make_tasks("I1-Inst", 1000, seed=1) if task.kind == "chain")
    console.print(f"[bold]      user[/]  {task.instruction}", highlight=False)
    with open_engine(run) as engine:
        outcome = run_one(
            engine, Episode(0, ToolWorldSource(World(task)), [UserMessage(task.instruction)], task.tools),
            on_event=agent_display(console),
        )  # fmt: skip
    return outcome.to_json() | {"system": "umi"}


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. global_stage.minutes=5")] = None,
) -> None:
    """Train what a recipe says; the same command again resumes where it stopped.

    Under `accelerate launch` or `torchrun` (-m alpha_umi.cli train RECIPE) all processes train one run together.
    """
    from alpha_umi.training.recipe import PretrainRecipe, load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from alpha_umi.display import bars, pretraining_bars, training_bars
    from alpha_umi.training.processes import join

    compute.use_all_cores()
    processes = join()
    if isinstance(loaded, PretrainRecipe) and processes.count > 1:
        raise RecipeError(f"{recipe}: pretraining runs in one process, not in {processes.count}; start it by itself")
    console = terminal()
    console.quiet = not processes.main
    with bars(console) as shown:
        if isinstance(loaded, PretrainRecipe):
            from alpha_umi.training.nano import pretrain

            pretrain(loaded, pretraining_bars(shown))
        else:
            from alpha_umi.training.glpft import train as train_run

            train_run(loaded, training_bars(shown))
    console.print(f"trained: {loaded.out}")
    processes.leave()


def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    form: Annotated[str, typer.Option("--as", help="peft (one folder a role) | merged (one whole model a role).")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    variant: Variant = None,
) -> None:
    """Write a run's roles as PEFT adapters, or as whole models for programs that know no adapters."""
    from alpha_umi.export import export_run

    for folder in export_run(run, form, out, variant):
        terminal().print(f"exported: {folder}", highlight=False)
