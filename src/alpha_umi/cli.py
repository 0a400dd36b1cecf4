"""The command line: ``umi <verb>``, thin; each verb is one function.

Exit codes: 0 when it did what was asked, 2 when what was given is wrong (one clear sentence), 1 for mistakes of the
program. Heavy imports happen inside the verbs, so that ``umi --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi.compute import use_all_cores
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from alpha_umi.agent import Episode
    from alpha_umi.engines import Engine
    from alpha_umi.engines.load import PaperRun
    from alpha_umi.tools import Approval, ToolSource
    from alpha_umi.tools.sources import OpenTools
    from alpha_umi.trajectory import Trajectory

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="α-UMi: train, evaluate and run a planner, a caller and a summarizer that share one backbone.",
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, help="Convert and look at trajectories.")
eval_app = typer.Typer(no_args_is_help=True, help="Evaluate a run: static metrics, live pass rate.")
app.add_typer(data_app, name="data")
app.add_typer(eval_app, name="eval")
bench_app = typer.Typer(no_args_is_help=True, help="Measure what things cost here, as ratios.")
app.add_typer(bench_app, name="bench")

Model = Annotated[Path | None, typer.Option("--model", help="A run directory.")]
Planner = Annotated[str | None, typer.Option("--planner", help="The paper's planner: a directory or a hub id.")]
Caller = Annotated[str | None, typer.Option("--caller", help="The paper's caller, likewise.")]
Summarizer = Annotated[str | None, typer.Option("--summarizer", help="The paper's summarizer, likewise.")]
RendererName = Annotated[
    str | None, typer.Option("--renderer", help="transcript, or paper (for the paper's own checkpoints).")
]
Constrain = Annotated[
    bool, typer.Option("--constrain/--no-constrain", help="Hold calls and decisions to what is legal.")
]
Tools = Annotated[
    list[str],
    typer.Option(
        "--tools",
        help="Where tools come from; may be repeated: toolworld[:N], FILE.py or a module, FILE.json (function schemas, "
        "ToolBench tools), FILE.yaml or URL (OpenAPI).",
    ),
]
Retrieve = Annotated[int | None, typer.Option(min=1, help="Show the agent only the K tools that fit the query best.")]
Only = Annotated[list[str] | None, typer.Option("--only", help="Of an OpenAPI document, only this tool; repeatable.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="Of an OpenAPI document, only tools of this tag.")]
Auth = Annotated[
    list[str] | None,
    typer.Option("--auth", help="SCHEME=VARIABLE: the environment variable with an OpenAPI server's key or token."),
]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Of an OpenAPI document's server.")]
Approve = Annotated[str, typer.Option(help="Which calls you confirm: always | writes | never.")]
Instructions = Annotated[int | None, typer.Option(min=1, help="Instructions a split (200 or 100, if not given).")]


def main() -> None:
    """Runs the command line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve whatever else runs on the machine
    # one compiled kernel a shape is kept: without a bound, training's many shapes fill gigabytes
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    try:
        app()
    except UserError as error:
        _console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        _console(stderr=True).print("stopped; the same command goes on where it was", style="yellow")
        sys.exit(130)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/quickstart"),
    minutes: Annotated[float | None, typer.Option(help="Training time, evaluation not included [default: 8].")] = None,
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
    use_all_cores()
    console = _console()
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


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. global_stage.minutes=5")] = None,
) -> None:
    """Train what a recipe says; the same command again resumes where it stopped."""
    from alpha_umi.training.recipe import PretrainRecipe, load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from alpha_umi.display import bars, pretraining_bars, training_bars

    use_all_cores()
    console = _console()
    with bars(console) as shown:
        if isinstance(loaded, PretrainRecipe):
            from alpha_umi.training.nano import pretrain

            pretrain(loaded, pretraining_bars(shown))
        else:
            from alpha_umi.training.glpft import train as train_run

            train_run(loaded, training_bars(shown))
    console.print(f"trained: {loaded.out}")


def _episode(query: str, source: ToolSource, retrieve: int | None) -> Episode:
    """An episode for a query; of the source's tools it is shown the best ``retrieve``, or all."""
    from alpha_umi.agent import Episode
    from alpha_umi.tools.retrieve import retrieve as best
    from alpha_umi.trajectory import UserMessage

    shown = None if retrieve is None else best(source.tools, query, retrieve)
    return Episode(0, source, [UserMessage(query)], shown)


def _approval(policy: str) -> Approval:
    """Asks at the terminal, if there is one."""
    from rich.text import Text

    from alpha_umi.tools import Approval
    from alpha_umi.tools.text import observable

    def ask(name: str, arguments: Mapping[str, Any]) -> bool:
        call = observable(f"{name}({json.dumps(arguments, ensure_ascii=False)})", 2000)
        try:
            answer = _console(stderr=True).input(Text(f"   confirm  {call}  make this call? [y/N] ", "bold red"))
        except EOFError:
            return False
        return answer.strip().lower() in ("y", "yes")

    return Approval.of(policy, ask if sys.stdin.isatty() else None)


@app.command()
def run(
    query: Annotated[str, typer.Argument(help="What the agent is to do.")],
    tools: Tools,
    model: Model = None,
    planner: Planner = None,
    caller: Caller = None,
    summarizer: Summarizer = None,
    renderer: RendererName = None,
    constrain: Constrain = True,
    retrieve: Retrieve = None,
    only: Only = None,
    tag: Tag = None,
    auth: Auth = None,
    base_url: BaseUrl = None,
    approve: Approve = "writes",
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object.")] = False,
) -> None:
    """Solve one query; the planner's rationale, the calls, the replies and the answer are shown as they come."""
    from alpha_umi.agent import run_one
    from alpha_umi.display import agent_display
    from alpha_umi.engines.load import chosen_source, open_engine
    from alpha_umi.tools import OpenApiOptions, open_tools

    if not query.strip():
        raise UserError("the query is empty: say what the agent is to do")
    source = chosen_source(model, planner, caller, summarizer, renderer)
    approval = _approval(approve)
    options = OpenApiOptions(only or (), tag or (), base_url, auth or ())
    use_all_cores()
    console = _console()
    with open_tools(tools, query, options) as opened, open_engine(source, constrain=constrain) as engine:
        outcome = run_one(
            engine, _episode(query, opened.source, retrieve), on_event=None if as_json else agent_display(console),
            approval=approval, runner=opened.runner,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(outcome.to_json(), ensure_ascii=False))


@app.command()
def chat(
    tools: Tools,
    model: Model = None,
    planner: Planner = None,
    caller: Caller = None,
    summarizer: Summarizer = None,
    renderer: RendererName = None,
    constrain: Constrain = True,
    retrieve: Retrieve = None,
    only: Only = None,
    tag: Tag = None,
    auth: Auth = None,
    base_url: BaseUrl = None,
    approve: Approve = "writes",
) -> None:
    """Talk with the agent; an empty line or Ctrl-D ends it."""
    from alpha_umi.engines.load import chosen_source, open_engine
    from alpha_umi.tools import OpenApiOptions, open_tools

    source = chosen_source(model, planner, caller, summarizer, renderer)
    approval = _approval(approve)
    options = OpenApiOptions(only or (), tag or (), base_url, auth or ())
    use_all_cores()
    console = _console()
    with open_engine(source, constrain=constrain) as engine:
        query = _ask(console)
        while query is not None:
            with open_tools(tools, query, options) as opened:
                query = _converse(console, engine, opened, _episode(query, opened.source, retrieve), approval)


def _converse(console: Console, engine: Engine, opened: OpenTools, episode: Episode, approval: Approval) -> str | None:
    """One conversation; returns the first line of the next, or None if the user has had enough."""
    from alpha_umi.agent import run_one
    from alpha_umi.display import agent_display

    show = agent_display(console)
    try:
        while True:
            outcome = run_one(engine, episode, on_event=show, keep=True, approval=approval, runner=opened.runner)
            reason = outcome.stop_reason.value
            if reason not in ("answered", "gave_up"):
                console.print(f"the conversation ends here ({reason}); the next line starts a new one")
                return _ask(console)
            query = _ask(console)
            if query is None:
                return None
            episode.follow_up(query)
    finally:
        engine.forget([episode.session])


def _ask(console: Console) -> str | None:
    try:
        return console.input("[bold]       you[/]  ").strip() or None
    except EOFError:
        return None


@data_app.command()
def convert(
    src: Annotated[Path, typer.Argument(help="A file or a folder.")],
    out: Annotated[Path, typer.Option(help="The file to write: JSONL, or one JSON array if it ends in .json.")],
    from_format: Annotated[str, typer.Option("--from", help="Its format; `umi data formats` lists them.")] = "auto",
    to_format: Annotated[str | None, typer.Option("--to", help="Write this format instead of trajectories.")] = None,
    tools: Annotated[Path | None, typer.Option(help="Tool documents, where records only name their tools.")] = None,
    role: Annotated[str | None, typer.Option(help="Whose rows `--to paper-rows` writes.")] = None,
    rationale: Annotated[str, typer.Option(help="keep | drop | rule: write missing rationales by rule.")] = "keep",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Convert foreign data into trajectories; what can't be converted goes to OUT.rejected.jsonl with the reason."""
    from alpha_umi.data import Options, convert_file
    from alpha_umi.data.rationales import rationales
    from alpha_umi.display import bars

    with bars(_console(stderr=True)) as shown:
        summary = convert_file(
            src, from_format, out, lambda read: shown.count("records", read), Options.of(tools, role), to_format,
            rationales(rationale),
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({
            "format": summary.from_format, "read": summary.read, "converted": summary.converted,
            "written": summary.written, "rejected": dict(summary.rejected),
        }))  # fmt: skip
        return
    console = _console()
    console.print(
        f"{summary.converted} of {summary.read} records converted ({summary.from_format}): {out}", highlight=False
    )
    for reason, count in summary.rejected.items():
        console.print(f"  rejected {count}: {reason}", highlight=False, markup=False)
    if summary.rejected_path is not None:
        console.print(f"  they are in {summary.rejected_path}", highlight=False, markup=False)


@data_app.command()
def formats() -> None:
    """List the formats that can be read and written."""
    from alpha_umi.data import FORMATS

    for name, one in FORMATS.items():
        ways = f"{'in' if one.read else '':3}{'out' if one.write or one.rows else '':4}"
        typer.echo(f"{name:18} {ways} {one.description}")


@data_app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A JSONL file of trajectories.")],
    index: Annotated[int, typer.Option(min=0, help="Which trajectory, from 0.")] = 0,
    model: Annotated[Path | None, typer.Option("--model", help="Render it as this run does.")] = None,
    observation_tokens: Annotated[int, typer.Option(min=16, help="Budget of an observation.")] = 256,
    html: Annotated[Path | None, typer.Option(help="Write the view as a page, instead of printing it.")] = None,
    renderer_name: Annotated[str, typer.Option("--renderer", help="transcript, or paper: its rows.")] = "transcript",
    role: Annotated[str, typer.Option(help="Whose rows `--renderer paper` shows.")] = "planner",
) -> None:
    """Show a trajectory as the model sees it: tokens coloured by role, underlined where they are in the loss."""
    import itertools

    from alpha_umi.display import transcript_lengths, transcript_page, transcript_view
    from alpha_umi.run_directory import load_renderer
    from alpha_umi.trajectory import atomic_write, read_jsonl

    trajectory = next(itertools.islice(read_jsonl(file), index, None), None)
    if trajectory is None:
        raise UserError(f"{file} has no trajectory {index}; the first is 0")
    if renderer_name == "paper":
        _inspect_paper(trajectory, role)
        return
    if renderer_name != "transcript":
        raise UserError(f"unknown renderer {renderer_name!r}; known are transcript and paper")
    renderer = load_renderer(model, observation_tokens)
    transcript = renderer.render(trajectory)
    console = _console()
    if html is not None:
        with atomic_write(html) as page:
            page.write(transcript_page(transcript, renderer.show))
        console.print(f"page: {html}", highlight=False)
        return
    console.print(transcript_view(transcript, renderer.show), soft_wrap=True)
    console.print(transcript_lengths(transcript))


def _inspect_paper(trajectory: Trajectory, role: str) -> None:
    """Prints the paper's rows of a role: the prompt dim, what is learned in the role's colour."""
    from rich.text import Text

    from alpha_umi.data import Options
    from alpha_umi.data.paper_rows import rows
    from alpha_umi.display import COLORS

    console = _console()
    for number, row in enumerate(rows([trajectory], Options.of(role=role)), 1):
        console.rule(f"row {number}: {len(row['input'])} characters read, {len(row['target'])} learned")
        console.print(Text.assemble((row["input"], "dim"), (row["target"], f"underline {COLORS.get(role, 'blue')}")))


@data_app.command()
def stats(
    file: Annotated[Path, typer.Argument(help="A JSONL file of trajectories.")],
    model: Annotated[Path | None, typer.Option("--model", help="Count tokens as this run does.")] = None,
    tokens: Annotated[bool, typer.Option(help="Count tokens at all.")] = True,
    plot: Annotated[Path | None, typer.Option(help="Draw the distributions into this PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Count what a file holds: trajectories, steps, decisions, calls, errors, rationales, lengths."""
    from alpha_umi.data.stats import Stats
    from alpha_umi.display import bars, stats_tables
    from alpha_umi.run_directory import load_renderer
    from alpha_umi.trajectory import atomic_write, read_jsonl

    counted = Stats(load_renderer(model, 256) if tokens else None)
    with bars(_console(stderr=True)) as shown:
        for number, trajectory in enumerate(read_jsonl(file), 1):
            counted.add(trajectory)
            shown.count("trajectories", number)
    if not counted.counts["trajectories"]:
        raise UserError(f"{file} holds no trajectory")
    if plot is not None:
        from alpha_umi.evaluation.plots import lengths_plot

        with atomic_write(plot, "wb") as png:
            png.write(lengths_plot(counted.values))
    if as_json:
        typer.echo(json.dumps(counted.to_json()))
        return
    for table in stats_tables(counted.to_json()):
        _console().print(table)


@data_app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A JSONL file of trajectories.")],
    show: Annotated[int, typer.Option(min=0, help="How many findings of a kind to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print every finding as a line of JSON.")] = False,
) -> None:
    """Warn of what hurts training: cut names and replies, calls that break their schema, duplicates, and more."""
    from alpha_umi.data.check import KINDS
    from alpha_umi.data.check import check as findings_of
    from alpha_umi.trajectory import read_jsonl

    found: dict[str, list[str]] = {}
    for finding in findings_of(read_jsonl(file)):
        found.setdefault(finding.kind, []).append(f"trajectory {finding.index}: {finding.what}")
        if as_json:
            typer.echo(json.dumps({"kind": finding.kind, "index": finding.index, "what": finding.what}))
    if as_json:
        return
    console = _console()
    for kind, places in sorted(found.items(), key=lambda item: -len(item[1])):
        console.print(f"{len(places):6} {kind}: {KINDS[kind]}", highlight=False, markup=False)
        for place in places[:show]:
            console.print(f"         {place[:200]}", style="dim", highlight=False, markup=False)
    console.print("nothing found" if not found else f"{sum(map(len, found.values()))} findings", highlight=False)


@data_app.command()
def split(
    file: Annotated[Path, typer.Argument(help="A JSONL file of trajectories.")],
    train: Annotated[Path, typer.Option(help="Where the larger side goes.")],
    test: Annotated[Path, typer.Option(help="Where the held-out side goes.")],
    by: Annotated[
        str, typer.Option(help="tool | instruction | category | tool-set | the path of a value in extra.")
    ] = "instruction",
    share: Annotated[float, typer.Option(help="Share of the trajectories to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Another seed, other groups.")] = 0,
) -> None:
    """Split a file without leaks: trajectories of one instruction, category or set of called tools stay together."""
    from alpha_umi.data import split_by
    from alpha_umi.trajectory import read_jsonl, write_jsonl

    kept, held_out = split_by(read_jsonl(file), by, share, seed)
    _console().print(f"{write_jsonl(train, kept)} to {train}, {write_jsonl(test, held_out)} to {test}", highlight=False)


@eval_app.command("static")
def eval_static(
    data: Annotated[
        str | None, typer.Option(help="A JSONL file of trajectories, or `toolworld` for its six splits.")
    ] = None,
    model: Model = None,
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
        figures = _scored_model(source, data, instructions, constrain)
    if json_out is not None:
        from alpha_umi.trajectory import write_json

        write_json(json_out, figures)
    splits = figures.get("splits") or {"all": figures}
    name = (model or predictions or Path("paper's checkpoints")).name
    _print_tables({
        f"{name} ({mode})": {"static": {split: scores[mode] for split, scores in splits.items()}}
        for mode in ("paper", "strict")
    })  # fmt: skip


def _scored_file(path: Path) -> dict[str, Any]:
    from alpha_umi.evaluation.reference_predictions import read_groups, read_predictions
    from alpha_umi.evaluation.toolworld_suite import both_modes

    return both_modes(read_predictions(path), read_groups(path))


def _scored_model(source: Path | PaperRun, data: str, instructions: int | None, constrain: bool) -> dict[str, Any]:
    from alpha_umi.display import bars
    from alpha_umi.engines.load import open_engine
    from alpha_umi.evaluation.static import static_predictions
    from alpha_umi.evaluation.toolworld_suite import Suite, evaluate_static, static_scores
    from alpha_umi.trajectory import read_jsonl

    trajectories = list(read_jsonl(data)) if data != "toolworld" else []
    use_all_cores()
    with bars(_console(stderr=True)) as shown, open_engine(source, constrain=constrain) as engine:
        if data == "toolworld":
            return {"splits": evaluate_static(engine, Suite.default(instructions), None, shown.update)}
        run = static_predictions(
            engine, trajectories[:instructions], on_progress=lambda done, total: shown.update("static", done, total)
        )
    return static_scores(run)


@eval_app.command("live")
def eval_live(
    world: Annotated[str, typer.Option(help="Where the agent works: toolworld.")],
    model: Model = None,
    planner: Planner = None,
    caller: Caller = None,
    summarizer: Summarizer = None,
    renderer: RendererName = None,
    constrain: Constrain = True,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    traces: Annotated[Path | None, typer.Option(help="Write episodes and failures into this folder.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to run (all six, if none is named).")] = None,
    instructions: Instructions = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at one time.")] = 64,
) -> None:
    """Run the agent on instructions whose tools answer; report the pass rate of each split."""
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
    use_all_cores()
    with bars(_console(stderr=True)) as shown, open_engine(source, constrain=constrain) as engine:
        suite = Suite.default(instructions, split or SPLITS)
        splits = evaluate_live(engine, suite, traces, shown.update, concurrency)
    if json_out is not None:
        write_json(json_out, {"splits": splits})
    _print_tables({(model or Path("paper's checkpoints")).name: {"live": splits}})


@bench_app.command("train")
def bench_train_command(
    data: Annotated[
        Path | None, typer.Option(help="Trajectories to measure the toolbench shape with, not made-up ones.")
    ] = None,
    shape: Annotated[list[str] | None, typer.Option(help="toolbench | long; both, if none is named.")] = None,
    transcripts: Annotated[int, typer.Option(min=1, help="In a batch.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Timed steps; the figure is their median.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
) -> None:
    """The local stage's three adapters in one pass, against TRL's LoRA training and the paper's layout."""
    from alpha_umi.bench.shapes import SHAPES, ShapeName
    from alpha_umi.bench.train import TrainBench, bench_train
    from alpha_umi.trajectory import write_json

    chosen: list[ShapeName] = [name for name in SHAPES if not shape or name in shape]
    unknown = sorted(set(shape or ()) - set(SHAPES))
    if unknown:
        raise UserError(f"--shape {unknown[0]}: there is no such shape; there are {', '.join(SHAPES)}")
    settings = TrainBench(transcripts=transcripts, rounds=rounds, threads=threads, trajectories=data)
    status = _console(stderr=True)
    figures = bench_train(settings, chosen, lambda peer: status.print(f"measuring {peer}", style="dim"))
    if json_out is not None:
        write_json(json_out, figures)
    typer.echo(json.dumps(figures["ratios"], indent=2))


def _print_tables(systems: dict[str, Any]) -> None:
    from alpha_umi.evaluation.report import rich_tables

    console = _console()
    for table in rich_tables({"systems": systems}):
        console.print(table)


if __name__ == "__main__":
    main()
