"""`umi eval static` and `umi eval live`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi import compute
from alpha_umi.cli.options import (
    Caller,
    Constrain,
    Instructions,
    Model,
    Planner,
    RendererName,
    Summarizer,
    Variant,
    print_tables,
    strategy_for,
    terminal,
)
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from alpha_umi.agent import ChosenStrategy
    from alpha_umi.engines.load import PaperRun

app = typer.Typer(no_args_is_help=True, help="Evaluate a run: static metrics, live pass rate.")


@app.command("static")
def eval_static(
    data: Annotated[
        str | None, typer.Option(help="A JSONL file of trajectories, or `toolworld` for its six splits.")
    ] = None,
    model: Model = None,
    variant: Variant = None,
    planner: Planner = None,
    caller: Caller = None,
    summarizer: Summarizer = None,
    renderer: RendererName = None,
    constrain: Constrain = True,
    planner_speaker: Annotated[
        str, typer.Option(help="Paper renderer: planner (as the paper's static inference) or assistant (as training).")
    ] = "planner",
    predictions: Annotated[Path | None, typer.Option(help="Score a predictions file instead of a model.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    instructions: Instructions = None,
) -> None:
    """The five static metrics, by the paper's rules and by strict ones: gold history, one prediction a step."""
    from alpha_umi.engines.load import chosen_source

    if predictions is not None:
        figures = _scored_file(predictions)
    elif data is None:
        raise UserError("give --model RUN and --data FILE (or toolworld), or --predictions FILE")
    else:
        source = chosen_source(model, planner, caller, summarizer, renderer, planner_speaker)
        figures = _scored_model(source, data, instructions, constrain, variant)
    if json_out is not None:
        from alpha_umi.trajectory import write_json

        write_json(json_out, figures)
    splits = figures.get("splits") or {"all": figures}
    name = (model or predictions or Path("paper's checkpoints")).name
    print_tables({
        f"{name} ({mode})": {"static": {split: scores[mode] for split, scores in splits.items()}}
        for mode in ("paper", "strict")
    })  # fmt: skip


def _scored_file(path: Path) -> dict[str, Any]:
    from alpha_umi.evaluation.reference_predictions import read_groups, read_predictions
    from alpha_umi.evaluation.toolworld_suite import both_modes

    return both_modes(read_predictions(path), read_groups(path))


def _scored_model(
    source: Path | PaperRun, data: str, instructions: int | None, constrain: bool, variant: str | None
) -> dict[str, Any]:
    from alpha_umi.display import bars
    from alpha_umi.engines.load import open_engine
    from alpha_umi.evaluation.static import static_predictions
    from alpha_umi.evaluation.toolworld_suite import Suite, evaluate_static, static_scores
    from alpha_umi.trajectory import read_jsonl

    trajectories = list(read_jsonl(data)) if data != "toolworld" else []
    compute.use_all_cores()
    with bars(terminal(stderr=True)) as shown, open_engine(source, constrain=constrain, variant=variant) as engine:
        if data == "toolworld":
            return {"splits": evaluate_static(engine, Suite.default(instructions), None, shown.update)}
        run = static_predictions(
            engine, trajectories[:instructions], on_progress=lambda done, total: shown.update("static", done, total)
        )
    return static_scores(run)


@app.command("live")
def eval_live(
    world: Annotated[str, typer.Option(help="Where the agent works: toolworld.")],
    model: Model = None,
    variant: Variant = None,
    planner: Planner = None,
    caller: Caller = None,
    summarizer: Summarizer = None,
    renderer: RendererName = None,
    constrain: Constrain = True,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    traces: Annotated[Path | None, typer.Option(help="Write episodes and failures into this folder.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to run (all six, if none is named).")] = None,
    instructions: Instructions = None,
    faulty: Annotated[bool, typer.Option("--faulty", help="Only instructions on whose way tools fail.")] = False,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="react (if none is named) | dfsdt | best-of-n, as of `umi run`; several are compared."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at one time.")] = 64,
) -> None:
    """Run the agent on instructions whose tools answer; report pass rate and token cost of each split."""
    from alpha_umi.display import bars
    from alpha_umi.engines.load import chosen_source, open_engine
    from alpha_umi.evaluation.toolworld_suite import Suite, evaluate_live
    from alpha_umi.toolworld import SPLITS
    from alpha_umi.trajectory import write_json

    if world != "toolworld":
        raise UserError(f"--world {world}: there is no such world; toolworld is the one there is")
    unknown = sorted(set(split or ()) - set(SPLITS))
    if unknown:
        raise UserError(f"--split {unknown[0]}: there is no such split; there are {', '.join(SPLITS)}")
    source = chosen_source(model, planner, caller, summarizer, renderer)
    chosen = {text: strategy_for(text, source) for text in strategy or ["react"]}
    suite = Suite.default(instructions, split or SPLITS, faulty)
    compute.use_all_cores()
    with bars(terminal(stderr=True)) as shown, open_engine(source, constrain=constrain, variant=variant) as engine:
        found = {
            text: {
                "splits": evaluate_live(engine, suite, _folder(traces, text, chosen), shown.update, concurrency, one)
            }
            for text, one in chosen.items()
        }
    if json_out is not None:
        write_json(json_out, {"strategies": found} if len(found) > 1 else next(iter(found.values())))
    name = (model or Path("paper's checkpoints")).name
    print_tables({
        name if text == "react" else f"{name} ({text})": {"live": one["splits"]} for text, one in found.items()
    })  # fmt: skip


def _folder(traces: Path | None, strategy: str, chosen: Mapping[str, ChosenStrategy]) -> Path | None:
    """Where a strategy's episodes go: a folder of its own, if there are several."""
    return traces / re.sub(r"[^\w.,=-]", "-", strategy) if traces is not None and len(chosen) > 1 else traces
