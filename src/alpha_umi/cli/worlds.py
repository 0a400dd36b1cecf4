"""`umi world serve`, and the worlds of `umi eval live` in which a judge decides and no checker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi.cli.options import ApiOptions, ModelOptions, terminal
from alpha_umi.cli.serving import key_of
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from alpha_umi.cli.evaluation import EvaluateLive
    from alpha_umi.worlds.running import World

_NOT_DECIDING = {"api_key_env", "timeout", "max_retries", "concurrency"}
WORLDS = ("stabletoolbench", "own", "tooltalk", "traject-bench")

app = typer.Typer(no_args_is_help=True, help="Worlds that agents are evaluated in: a server of virtual APIs.")


@dataclass(frozen=True)
class WorldOptions:
    """Which queries, and who answers the calls."""

    queries: Annotated[
        list[Path] | None,
        typer.Option("--queries", help="A file of queries, which is a set by its name; repeatable (docs/worlds.md)."),
    ] = None
    server: Annotated[
        str | None,
        typer.Option("--server", help="World stabletoolbench: who answers, such as `umi world serve`, by its URL."),
    ] = None
    server_key_env: Annotated[
        str | None, typer.Option("--server-key-env", help="The environment variable with that server's key.")
    ] = None
    tools: Annotated[
        list[str] | None, typer.Option("--tools", help="World own: the tools, as of `umi run`; repeatable.")
    ] = None
    approve: Annotated[
        str, typer.Option(help="World own: writes refuses calls that change something, never makes all.")
    ] = "writes"
    shard: Annotated[
        str | None,
        typer.Option("--shard", help="I/N: only the I-th of N parts; needs --traces, which parts may share."),
    ] = None


@app.command()
def serve(
    replies: Annotated[
        Path, typer.Option(help="The SQLite file of replies: it answers first, and every answer comes into it.")
    ] = Path("world.sqlite"),
    cache: Annotated[
        Path | None, typer.Option(help="StableToolBench's own cache, the folder tool_response_cache; only read.")
    ] = None,
    documents: Annotated[
        list[Path] | None,
        typer.Option(help="APIs' documentation: a folder of ToolBench tools, or a file of queries; repeatable."),
    ] = None,
    simulator: Annotated[
        Path | None, typer.Option(help="An engine file whose agent answers calls that nobody recorded.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine only with a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8080,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="The environment variable with the key that clients send.")
    ] = None,
) -> None:
    """Serve virtual APIs by StableToolBench's protocol; prints the URL when it is ready."""
    try:
        from alpha_umi.serving import server
        from alpha_umi.serving.security import check_binding
        from alpha_umi.worlds.server import create_world
    except ModuleNotFoundError as error:
        raise UserError(f"umi world serve needs the package {error.name}: install alpha-umi[serve]") from error
    from alpha_umi.worlds.documents import Documents
    from alpha_umi.worlds.protocol import PATH
    from alpha_umi.worlds.published_cache import PublishedCache
    from alpha_umi.worlds.replies import ReplyStore
    from alpha_umi.worlds.simulator import load_simulator
    from alpha_umi.worlds.virtual import VirtualApis

    key = key_of(api_key_env)
    check_binding(host, key)
    published = None if cache is None else PublishedCache(cache)
    known, model = Documents(documents or []), None if simulator is None else load_simulator(simulator)
    if model is not None and published is None and not len(known):
        raise UserError("--simulator: give --documents (or --cache) with it, what the simulator is to go by")
    with server.bind(host, port) as bound:
        apis = VirtualApis(ReplyStore(replies), published=published, documents=known, simulator=model)
        url = server.base_url(bound).removesuffix("/v1") + PATH
        server.serve(create_world(apis, key), bound, lambda: typer.echo(f"serving virtual APIs at {url}"))
    typer.echo(json.dumps({"answered": dict(apis.answered)}))


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="The folder that gets all episodes.")],
    shards: Annotated[list[Path], typer.Argument(help="What `umi eval live --shard --traces` left elsewhere.")],
) -> None:
    """Bring the episodes of shards that ran in folders of their own together."""
    from alpha_umi.worlds.episodes import merge as merged

    for split, episodes in merged(out, shards).items():
        typer.echo(f"{split}: {episodes} episodes")


def world_evaluation(
    name: str | None, given: WorldOptions, api: ApiOptions, speaking: ModelOptions, instructions: int | None,
    traces: Path | None,
) -> EvaluateLive:  # fmt: skip
    """What runs a world's sets with an engine and counts; what is finished in the folder isn't run again.

    Raises:
        UserError: The options don't go together, or the queries can't be read.
    """
    from alpha_umi.tools import Approval
    from alpha_umi.worlds.counts import counts
    from alpha_umi.worlds.episodes import EpisodeStore
    from alpha_umi.worlds.running import Shard, run_world

    world = _world(name or "own", given, api)
    shard = None if given.shard is None else Shard.read(given.shard)
    if shard is not None and traces is None:
        raise UserError("--shard needs --traces DIR, where the parts' episodes come together")
    approval = Approval.of(given.approve, None)
    sets = {split: tasks[:instructions] for split, tasks in world.sets.items()}
    settings = {"world": world.name, "approve": given.approve, **_spoken_by(speaking), **world.settings}

    def evaluate(engine: Any, folder: Path | None, on_progress: Any, concurrency: int, chosen: Any) -> dict[str, Any]:
        searched = {"strategy": f"{chosen.strategy} {chosen.limits}", "sampling": repr(chosen.sampling)}
        with EpisodeStore(folder, settings | searched) as store:
            run_world(
                engine, world.of(sets), store, chosen, concurrency=concurrency, shard=shard, approval=approval,
                on_progress=on_progress,
            )  # fmt: skip
            return {
                split: counts([one.figures for one in store.read(split)], len(tasks)) for split, tasks in sets.items()
            }

    return evaluate


def print_counts(title: str, sets: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints what `world_evaluation` found, a set a row."""
    from rich.table import Table

    heads = ("set", "episodes", "answered %", "gave up %", "calls", "failed", "tokens written", "read", "ended")
    table = Table(*heads, title=title, box=None, header_style="bold")
    for name, one in sets.items():
        told = [f"{one['episodes']} of {one['queries']}"]
        told += [f"{100 * one.get(key, 0):.1f}" for key in ("answered", "gave_up")]
        told += [f"{one.get(f'mean_{key}', 0):.1f}" for key in ("calls", "failed_calls")]
        told += [f"{one.get(f'mean_{key}_tokens', 0):.0f}" for key in ("generated", "prefill")]
        table.add_row(name, *told, ", ".join(f"{n} {why}" for why, n in one["stop_reasons"].items()))
    terminal().print(table)
    terminal().print("whether the answers are right, `umi eval judge pass` says", highlight=False)


def _world(name: str, given: WorldOptions, api: ApiOptions) -> World:
    from alpha_umi.worlds import catalogue

    if not given.queries:
        raise UserError(f"--world {name}: give --queries FILE, what is asked there")
    if (given.server is not None) != (name == "stabletoolbench"):
        raise UserError("--server URL belongs to --world stabletoolbench, and that needs it: start `umi world serve`")
    if bool(given.tools) != (name == "own"):
        raise UserError("--tools SOURCE belongs to --world own (or none), and that needs it; other worlds have theirs")
    if name == "stabletoolbench":
        from alpha_umi.worlds.client import WorldClient

        return catalogue.stabletoolbench(
            given.queries, WorldClient(given.server or "", key_of(given.server_key_env, "--server-key-env"))
        )
    if name == "own":
        return catalogue.own(given.queries, given.tools or (), api.options())
    return catalogue.recorded(name, given.queries)


def _spoken_by(speaking: ModelOptions) -> dict[str, str]:
    """Of a system, what decides its results."""
    from alpha_umi.engines.load import OpenAIRun

    source = speaking.source()
    described = str(source)
    if isinstance(source, OpenAIRun):
        asked = {voice: endpoint.model_dump(exclude=_NOT_DECIDING) for voice, endpoint in source.endpoints.items()}
        described = json.dumps([str(source.run), source.context, asked], default=str, sort_keys=True)
    elif isinstance(source, Path) and (source / "run.json").is_file():
        described = (source / "run.json").read_text(encoding="utf-8")
    return {"system": described, "variant": str(speaking.variant), "held": str(speaking.constrain)}
