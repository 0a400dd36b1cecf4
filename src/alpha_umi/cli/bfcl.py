"""`umi eval bfcl`: the Berkeley Function-Calling Leaderboard, by its own harness."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi.cli.options import Constrain, Model, Variant, terminal
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from alpha_umi.evaluation.bfcl.run import Endpoint


def eval_bfcl(
    model: Model = None,
    variant: Variant = None,
    constrain: Constrain = True,
    categories: Annotated[
        list[str] | None,
        typer.Option(help="single_turn (if none is named) | non_live | live | multi_turn | a category; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Entries of a category, evenly spread (all).")] = None,
    env: Annotated[Path, typer.Option(help="Where the harness's environment is, or is made.")] = Path("runs/bfcl-env"),
    out: Annotated[
        Path | None, typer.Option(help="Results, scores and logs; goes on with what is there [runs/bfcl-NAME].")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures there, too.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Requests at one time.")] = 8,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Of an endpoint that runs already.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the model there (the run's, if not given).")] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="The environment variable with the key to that endpoint.")
    ] = None,
) -> None:
    """BFCL v4 by its own harness: installs it, serves the run to it, collects its scores. Goes on where it stopped."""
    from alpha_umi.display import bars
    from alpha_umi.evaluation.bfcl.run import chosen_categories, evaluate_bfcl
    from alpha_umi.trajectory import write_json

    endpoint = _endpoint(model, variant, constrain, base_url, name, api_key_env)
    chosen = chosen_categories(categories or ["single_turn"])
    folder = out or Path("runs") / f"bfcl-{endpoint.model.rpartition('/')[2]}"
    with bars(terminal(stderr=True)) as shown:
        report = evaluate_bfcl(
            endpoint, chosen, folder, env, limit=limit, threads=threads, on_progress=shown.update
        )  # fmt: skip
    if json_out is not None:
        write_json(json_out, report)
    _print(report)


def _endpoint(
    model: Path | None, variant: str | None, constrain: bool, base_url: str | None, name: str | None, key: str | None
) -> Endpoint:
    from alpha_umi.evaluation.bfcl.run import Endpoint

    if (model is None) == (base_url is None):
        raise UserError("give either --model RUN, to have it served, or --base-url URL of an endpoint that runs")
    if model is not None:
        if not (model / "run.json").exists():
            raise UserError(f"--model {model}: no run directory is there")
        if key is not None:
            raise UserError(
                "--api-key-env belongs to --base-url; the server of --model is reached by this command alone"
            )
        options = ["--model", str(model), *(["--variant", variant] if variant else ())]
        return Endpoint(
            name or model.resolve().name, serve_options=(*options, *(() if constrain else ["--no-constrain"]))
        )
    if name is None:
        raise UserError("--base-url: give --name, the model's name at that endpoint, with it")
    if key is not None and not os.environ.get(key):
        raise UserError(f"--api-key-env {key}: there is no such environment variable, or it is empty")
    return Endpoint(name, base_url, os.environ[key] if key else None)


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{report['model']}, BFCL v4 ({report['harness']}), {report['server_errors']} server errors"
    table = Table("category", "right %", "n", "of", "errors", "right by error", title=title, box=None)
    for category, one in report["categories"].items():
        errors = ", ".join(f"{n} {kind}" for kind, n in one["errors"].items()) or "0"
        row = (f"{100 * one['accuracy']:.1f}", one["n"], one["entries"], errors, one["correct_by_error"])
        table.add_row(category, *map(str, row))
    terminal().print(table)
