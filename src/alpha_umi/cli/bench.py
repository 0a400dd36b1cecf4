"""`umi bench train` and `umi bench inference`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi.cli.options import terminal
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from alpha_umi.bench.shapes import ShapeName

Data = Annotated[Path | None, typer.Option(help="Trajectories to measure the toolbench shape with, not made-up ones.")]
ShapeNames = Annotated[list[str] | None, typer.Option("--shape", help="toolbench | long; both, if none is named.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Write the figures there.")]

app = typer.Typer(no_args_is_help=True, help="Measure what things cost here, as ratios.")


@app.command("train")
def bench_train_command(
    data: Data = None,
    shape: ShapeNames = None,
    transcripts: Annotated[int, typer.Option(min=1, help="In a batch.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Timed steps; the figure is their median.")] = 5,
    threads: Threads = 2,
    json_out: JsonOut = None,
) -> None:
    """The local stage's three adapters in one pass, against TRL's LoRA training and the paper's layout."""
    from alpha_umi.bench.train import TrainBench, bench_train

    chosen = _shapes(shape)
    settings = TrainBench(transcripts=transcripts, rounds=rounds, threads=threads, trajectories=data)
    _report(bench_train(settings, chosen, _measuring), json_out)


@app.command("inference")
def bench_inference_command(
    data: Data = None,
    shape: ShapeNames = None,
    episodes: Annotated[int, typer.Option(min=1, help="At one time.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of all episodes; the figure is their median.")] = 5,
    scale: Annotated[float, typer.Option(min=0.01, help="Of all lengths of the shapes.")] = 0.25,
    context: Annotated[int, typer.Option(min=1, help="Tokens of an episode whose memory is measured.")] = 2048,
    hidden: Annotated[int, typer.Option(min=64, help="Width of the random backbone, a multiple of 64.")] = 512,
    layers: Annotated[int, typer.Option(min=1, help="Its depth.")] = 8,
    threads: Threads = 2,
    json_out: JsonOut = None,
) -> None:
    """Three roles on one backbone and one cache, against one model and against three as the reference runs them."""
    from alpha_umi.bench.inference import InferenceBench, bench_inference

    if hidden % 64:
        raise UserError(f"--hidden {hidden}: the width has to be a multiple of 64")
    settings = InferenceBench(
        episodes=episodes, rounds=rounds, scale=scale, context=context, hidden=hidden, layers=layers,
        intermediate=3 * hidden, threads=threads, trajectories=data,
    )  # fmt: skip
    _report(bench_inference(settings, _shapes(shape), _measuring), json_out)


def _shapes(names: list[str] | None) -> list[ShapeName]:
    from alpha_umi.bench.shapes import SHAPES

    unknown = sorted(set(names or ()) - set(SHAPES))
    if unknown:
        raise UserError(f"--shape {unknown[0]}: there is no such shape; there are {', '.join(SHAPES)}")
    return [name for name in SHAPES if not names or name in names]


def _measuring(peer: str) -> None:
    terminal(stderr=True).print(f"measuring {peer}", style="dim")


def _report(figures: dict[str, Any], json_out: Path | None) -> None:
    from alpha_umi.trajectory import write_json

    if json_out is not None:
        write_json(json_out, figures)
    typer.echo(json.dumps(figures["ratios"], indent=2))
