"""`umi eval static` and `umi eval live`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi import compute
from alpha_umi.cli.bfcl import eval_bfcl
from alpha_umi.cli.options import (
    ApiOptions,
    CompareUnconstrained,
    Instructions,
    ModelOptions,
    Retriever,
    Temperature,
    print_tables,
    spread,
    strategy_for,
    terminal,
)
from alpha_umi.cli.worlds import WORLDS, WorldOptions, print_counts, world_evaluation
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from alpha_umi.agent import ChosenStrategy
    from alpha_umi.engines.base import Engine
    from alpha_umi.engines.load import Source
    from alpha_umi.evaluation.kept import OnProgress

    EvaluateLive = Callable[[Engine, Path | None, OnProgress, int, ChosenStrategy], dict[str, dict[str, Any]]]

app = typer.Typer(no_args_is_help=True, help="Evaluate a run: static metrics, live pass rate.")
app.command("bfcl")(eval_bfcl)


@app.command("static")
@spread
def eval_static(
    *,
    data: Annotated[
        str | None, typer.Option(help="A JSONL file of trajectories, or `toolworld` for its six splits.")
    ] = None,
    speaking: ModelOptions,
    compare: CompareUnconstrained = False,
    planner_speaker: Annotated[
        str | None,
        typer.Option(help="Paper renderer: planner (the default: its static inference) | assistant (its training)."),
    ] = None,
    predictions: Annotated[Path | None, typer.Option(help="Score a predictions file instead of a model.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    traces: Annotated[Path | None, typer.Option(help="Write every step's scores into this folder.")] = None,
    instructions: Instructions = None,
) -> None:
    """The five static metrics, by the paper's rules and by strict ones: gold history, one prediction a step."""
    from alpha_umi.engines.load import PaperRun

    ways = _ways(speaking.constrain, compare)
    if predictions is not None:
        if compare:
            raise UserError("--compare-unconstrained runs a model; what is in --predictions has been made one way")
        found = {"": _scored_file(predictions)}
    elif data is None:
        raise UserError("give --model RUN (or --engine YAML) and --data FILE (or toolworld), or --predictions FILE")
    else:
        source = speaking.source(planner_speaker)
        if isinstance(source, PaperRun) and source.planner_speaker is None:
            source = source.model_copy(update={"planner_speaker": "planner"})
        folders = {way: traces / way if traces is not None else None for way in ways}
        found = {
            way: _scored_model(source, data, instructions, held, speaking.variant, folders[way])
            for way, held in ways.items()
        }
    if json_out is not None:
        from alpha_umi.trajectory import write_json

        write_json(json_out, found if compare else found[""])
    name = predictions.name if predictions is not None else speaking.name
    print_tables({
        _titled(name, mode, way): {"static": {split: scores[mode] for split, scores in _splits(figures).items()}}
        for mode in ("paper", "strict")
        for way, figures in found.items()
    })  # fmt: skip


def _ways(constrain: bool, compare: bool) -> dict[str, bool]:
    """Whether to hold the model to what is legal: once without a name, or both ways by the names they are reported."""
    if compare and not constrain:
        raise UserError("--compare-unconstrained runs both ways: leave --no-constrain out")
    return {"constrained": True, "unconstrained": False} if compare else {"": constrain}


def _titled(name: str, *notes: str) -> str:
    given = ", ".join(filter(None, notes))
    return f"{name} ({given})" if given else name


def _splits(figures: dict[str, Any]) -> dict[str, Any]:
    return figures.get("splits") or {"all": figures}


def _scored_file(path: Path) -> dict[str, Any]:
    from alpha_umi.evaluation.reference_predictions import read_groups, read_predictions
    from alpha_umi.evaluation.toolworld_suite import both_modes

    return both_modes(read_predictions(path), read_groups(path))


def _scored_model(
    source: Source, data: str, instructions: int | None, constrain: bool, variant: str | None, traces: Path | None
) -> dict[str, Any]:
    from alpha_umi.display import bars
    from alpha_umi.engines.load import open_engine
    from alpha_umi.evaluation.kept_steps import scored_steps, write_steps
    from alpha_umi.evaluation.static import static_predictions
    from alpha_umi.evaluation.toolworld_suite import Suite, evaluate_static, static_scores
    from alpha_umi.trajectory import read_jsonl

    trajectories = list(read_jsonl(data)) if data != "toolworld" else []
    compute.use_all_cores()
    with bars(terminal(stderr=True)) as shown, open_engine(source, constrain=constrain, variant=variant) as engine:
        if data == "toolworld":
            return {"splits": evaluate_static(engine, Suite.default(instructions), traces, shown.update)}
        run = static_predictions(
            engine, trajectories[:instructions], on_progress=lambda done, total: shown.update("static", done, total)
        )
    if traces is not None:
        write_steps(traces / "static-all-steps.jsonl", scored_steps(run))
    return static_scores(run)


@app.command("live")
@spread
def eval_live(
    *,
    world: Annotated[
        str | None,
        typer.Option(
            help="toolworld | gsm8k (checked); stabletoolbench | own | tooltalk | traject-bench (to be judged)."
        ),
    ] = None,
    queried: WorldOptions,
    api: ApiOptions,
    speaking: ModelOptions,
    compare: CompareUnconstrained = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    traces: Annotated[Path | None, typer.Option(help="Write episodes and failures into this folder.")] = None,
    data: Annotated[Path | None, typer.Option(help="World gsm8k: a file of GSM8K records.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to run (all six, if none is named).")] = None,
    instructions: Instructions = None,
    faulty: Annotated[bool, typer.Option("--faulty", help="Only instructions on whose way tools fail.")] = False,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="react (if none is named) | dfsdt | best-of-n, as of `umi run`; several are compared."),
    ] = None,
    temperature: Temperature = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at one time.")] = 64,
) -> None:
    """Run the agent on instructions whose tools answer; report pass rate and token cost of each split."""
    from alpha_umi.trajectory import write_json

    ways = _ways(speaking.constrain, compare)
    judged = world in WORLDS or (world is None and queried.queries is not None)
    if judged and data is None and not split and not faulty:
        evaluate = world_evaluation(world, queried, api, speaking, instructions, traces)
    elif queried != WorldOptions():
        raise UserError(f"--queries and what goes with it belong to the worlds {', '.join(WORLDS)}, without --data")
    elif world == "toolworld" and data is None:
        evaluate = _toolworld(split, instructions, faulty)
    elif world == "gsm8k" and data is not None and not split and not faulty:
        evaluate = _gsm8k(data, instructions)
    else:
        raise UserError(
            f"--world {world}: give toolworld (with --split, --faulty), or gsm8k and --data FILE (and neither of "
            f"them), or --queries FILE with {', '.join(WORLDS)}"
        )
    source = speaking.source()
    chosen = {text: strategy_for(text, source, temperature) for text in strategy or ["react"]}
    compute.use_all_cores()
    found = {
        way: _lived(
            evaluate, source, held, speaking.variant, traces / way if traces is not None else None, chosen, concurrency
        )
        for way, held in ways.items()
    }
    if json_out is not None:
        figures = {way: {"strategies": one} if len(one) > 1 else one[next(iter(one))] for way, one in found.items()}
        write_json(json_out, figures if compare else figures[""])
    tables = {
        _titled(speaking.name, "" if text == "react" else text, way): {"live": one["splits"]}
        for way, strategies in found.items()
        for text, one in strategies.items()
    }
    if not judged:
        print_tables(tables)
    for title, one in tables.items() if judged else ():
        print_counts(title, one["live"])


def _lived(
    evaluate: EvaluateLive, source: Source, constrain: bool, variant: str | None, traces: Path | None,
    chosen: Mapping[str, ChosenStrategy], concurrency: int,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The figures of each strategy, with an engine opened for them."""
    from alpha_umi.display import bars
    from alpha_umi.engines.load import open_engine

    with bars(terminal(stderr=True)) as shown, open_engine(source, constrain=constrain, variant=variant) as engine:
        return {
            text: {"splits": evaluate(engine, _folder(traces, text, chosen), shown.update, concurrency, one)}
            for text, one in chosen.items()
        }


def _toolworld(split: Sequence[str] | None, instructions: int | None, faulty: bool) -> EvaluateLive:
    from alpha_umi.evaluation.toolworld_suite import Suite, evaluate_live
    from alpha_umi.toolworld import SPLITS

    unknown = sorted(set(split or ()) - set(SPLITS))
    if unknown:
        raise UserError(f"--split {unknown[0]}: there is no such split; there are {', '.join(SPLITS)}")
    suite = Suite.default(instructions, split or SPLITS, faulty)
    return lambda engine, *how: evaluate_live(engine, suite, *how)


def _gsm8k(data: Path, instructions: int | None) -> EvaluateLive:
    import asyncio

    from alpha_umi.data.gsm8k import read_questions
    from alpha_umi.evaluation.gsm8k import PROGRAM_LIMITS, evaluate_gsm8k
    from alpha_umi.tools.program import ProgramSource
    from alpha_umi.tools.sandbox import open_sandbox

    questions = list(islice(read_questions(data), instructions))
    sandbox = asyncio.run(open_sandbox(PROGRAM_LIMITS))
    return lambda engine, *how: evaluate_gsm8k(engine, questions, ProgramSource(sandbox), *how)


@app.command("retrieval")
def eval_retrieval(
    data: Annotated[Path, typer.Option(help="A JSONL file of trajectories; their tools together are the candidates.")],
    k: Annotated[list[int] | None, typer.Option("--k", min=1, help="Tools shown to the agent; repeatable [5].")] = None,
    retriever: Retriever = "bm25",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    instructions: Annotated[int | None, typer.Option(min=1, help="Trajectories to take (all, if not given).")] = None,
) -> None:
    """Recall@K of tool retrieval: of the tools an instruction needs, how many are among the K that fit it best?"""
    from rich.table import Table

    from alpha_umi.display import bars
    from alpha_umi.evaluation.retrieval import retrieval_recall
    from alpha_umi.tools.retrieve import open_retriever
    from alpha_umi.trajectory import read_jsonl, write_json

    index = open_retriever(retriever)
    trajectories = list(islice(read_jsonl(data), instructions))
    with bars(terminal(stderr=True)) as shown:
        found = retrieval_recall(
            trajectories, index, sorted(set(k or [5])), lambda done, total: shown.update("retrieval", done, total)
        )
    if json_out is not None:
        write_json(json_out, {"retriever": retriever, **found.to_json()})
    title = f"{retriever}, {found.tools} tools, {found.instructions} instructions"
    table = Table("K", "recall", "95 %", title=title, box=None, header_style="bold")
    for number, recall in found.recall.items():
        low, high = found.ci95[number]
        table.add_row(str(number), f"{100 * recall:.1f}", f"{100 * low:.1f} - {100 * high:.1f}")
    terminal().print(table)


def _folder(traces: Path | None, strategy: str, chosen: Mapping[str, ChosenStrategy]) -> Path | None:
    """Where a strategy's episodes go: a folder of its own, if there are several."""
    return traces / re.sub(r"[^\w.,=-]", "-", strategy) if traces is not None and len(chosen) > 1 else traces
