"""The command line: ``umi <verb>``, thin; each verb is one function, each group of verbs a module.

Exit codes: 0 when it did what was asked, 2 when what was given is wrong (one clear sentence), 1 for mistakes of the
program. Heavy imports happen inside the verbs, so that ``umi --help`` answers at once.
"""

import os
import sys

import typer

from alpha_umi.cli import (
    agent,
    bench,
    comparing,
    data,
    evaluation,
    judging,
    programs,
    serving,
    studies,
    tools,
    training,
    worlds,
)
from alpha_umi.cli.options import terminal
from alpha_umi.errors import UserError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="α-UMi: train, evaluate and run a planner, a caller and a summarizer that share one backbone.",
)  # fmt: skip
for verb in (training.quickstart, training.train, training.export, agent.run, agent.chat, serving.serve, serving.proxy):
    app.command()(verb)
app.command("tools")(tools.list_tools)
app.command()(studies.reproduce)
evaluation.app.command("compare")(comparing.compare_evaluations)
evaluation.app.add_typer(judging.app, name="judge")
data.app.command("run-programs")(programs.run_programs)
app.add_typer(data.app, name="data")
app.add_typer(evaluation.app, name="eval")
app.add_typer(bench.app, name="bench")
app.add_typer(worlds.app, name="world")


def main() -> None:
    """Runs the command line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve whatever else runs on the machine
    # one compiled kernel a shape is kept: without a bound, training's many shapes fill gigabytes
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    try:
        app()
    except UserError as error:
        terminal(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        terminal(stderr=True).print("stopped; the same command goes on where it was", style="yellow")
        sys.exit(130)
