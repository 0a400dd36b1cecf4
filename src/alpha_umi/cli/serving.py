"""`umi serve`: a run as a model that any OpenAI client can call; `umi proxy`: a recorder before any other model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpha_umi import compute
from alpha_umi.cli.options import Auth, BaseUrl, Constrain, EngineFile, Model, Only, Tag, Variant
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from alpha_umi.proxy.recorder import Recorder
    from alpha_umi.serving.app import OwnTools

_BODY = 1 << 20
_VLLM = Path("vllm")


def serve(
    model: Model = None,
    variant: Variant = None,
    engine_file: EngineFile = None,
    constrain: Constrain = True,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine only with a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="The environment variable with the key that clients send.")
    ] = None,
    served_model_name: Annotated[
        str | None,
        typer.Option("--served-model-name", help="Of the model, to clients (the run's or the file's, if not given)."),
    ] = None,
    tools: Annotated[
        list[str] | None,
        typer.Option("--tools", help="Run these tools here, and answer with the result; as of `umi run`. Repeatable."),
    ] = None,
    only: Only = None,
    tag: Tag = None,
    auth: Auth = None,
    base_url: BaseUrl = None,
    approve: Annotated[
        str, typer.Option(help="writes refuses calls that change something, never makes all, always none.")
    ] = "writes",
    concurrency: Annotated[int, typer.Option(min=1, help="Answers that are generated at one time.")] = 32,
    queue: Annotated[int, typer.Option(min=0, help="Answers that may wait beyond these.")] = 128,
    max_body: Annotated[int, typer.Option("--max-body", min=1024, help="Bytes of a request.")] = _BODY,
    print_command: Annotated[
        bool,
        typer.Option("--print-command", help="With --engine vllm: say how vLLM serves this run, and start nothing."),
    ] = False,
) -> None:
    """Serve a run at an OpenAI-compatible endpoint; prints its base_url when it is ready."""
    if print_command or (engine_file == _VLLM and not _VLLM.is_file()):
        _print_vllm(model, variant, engine_file, print_command, (host, port, api_key_env))
        return
    from alpha_umi.engines.load import chosen_source, open_engine

    source = chosen_source(model, None, None, None, None, engine=engine_file)
    try:
        from alpha_umi.serving import app, server
        from alpha_umi.serving.limits import ServerLimits
        from alpha_umi.serving.security import check_binding
    except ModuleNotFoundError as error:
        raise UserError(f"umi serve needs the package {error.name}: install alpha-umi[serve]") from error
    key = key_of(api_key_env)
    check_binding(host, key)
    limits = ServerLimits(concurrency=concurrency, queue=queue, body_bytes=max_body)
    own = _own_tools(tools, approve, only, tag, base_url, auth)
    compute.use_all_cores()
    with server.bind(host, port) as bound, open_engine(source, constrain=constrain, variant=variant) as engine:
        name = served_model_name or _name(model, engine_file)
        application = app.create_app(engine, name, limits=limits, api_key=key, tools=own)
        server.serve(application, bound, lambda: typer.echo(f"serving {name} at {server.base_url(bound)}"))


def _print_vllm(
    model: Path | None, variant: str | None, engine: Path | None, printing: bool, where: tuple[str, int, str | None]
) -> None:
    """Prints the commands that serve a run with vLLM, and the engine file for them."""
    if not printing:
        raise UserError(
            "--engine vllm: vLLM is started by itself; add --print-command to see how, then give the engine file that "
            "this prints as --engine FILE"
        )
    if engine != _VLLM or model is None:
        raise UserError("--print-command says how vLLM serves a run: give --engine vllm and --model RUN with it")
    from alpha_umi.engines.openai_vllm import Listening, vllm_plan
    from alpha_umi.serving.security import check_binding

    check_binding(where[0], where[2])
    typer.echo(vllm_plan(model, variant).script(Listening(*where)), nl=False)


def proxy(
    upstream: Annotated[str, typer.Option(help="The base_url that the application uses today.")],
    record: Annotated[Path, typer.Option(help="The folder that records go to; `umi data from-records` reads it.")],
    sample: Annotated[float, typer.Option(min=0, max=1, help="Share of the conversations that are recorded.")] = 1.0,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine only with a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8080,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="The environment variable with the key that clients send.")
    ] = None,
    upstream_key_env: Annotated[
        str | None,
        typer.Option("--upstream-key-env", help="With --api-key-env: the variable with the upstream's own key."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the upstream may be silent.")] = 600.0,
    max_body: Annotated[int, typer.Option("--max-body", min=1024, help="Bytes; larger ones are not kept.")] = 4194304,
    max_disk: Annotated[int, typer.Option("--max-disk", min=1, help="MiB that the folder may come to hold.")] = 8192,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each recorded exchange.")] = False,
) -> None:
    """Pass everything on to a model and back untouched, and record what uses tools; prints where when it is ready."""
    try:
        from alpha_umi.proxy import app, server
        from alpha_umi.proxy.limits import ProxyLimits
        from alpha_umi.proxy.recorder import Recorder
        from alpha_umi.serving.security import check_binding
        from alpha_umi.serving.server import bind
    except ModuleNotFoundError as error:
        raise UserError(f"umi proxy needs the package {error.name}: install alpha-umi[serve]") from error
    key, upstream_key = key_of(api_key_env), key_of(upstream_key_env)
    check_binding(host, key)
    if upstream_key is not None and key is None:
        raise UserError("--upstream-key-env lends a key to whoever asks: give --api-key-env, the clients' own, with it")
    limits = ProxyLimits(body_bytes=max_body, disk_bytes=max_disk << 20, silence_seconds=timeout)
    with bind(host, port) as bound:
        url = server.address(bound, upstream)
        recorder = Recorder(record, sample, limits, (lambda told: typer.echo(json.dumps(told))) if as_json else None)
        application = app.create_proxy(upstream, recorder, limits=limits, api_key=key, upstream_key=upstream_key)
        typer.echo(json.dumps({"event": "ready", "url": url}) if as_json else f"in place of {upstream}, use {url}")
        server.serve(application, bound, limits)
    _tell(recorder, record, as_json)


def _tell(recorder: Recorder, folder: Path, as_json: bool) -> None:
    """What was recorded."""
    tally = recorder.tally
    left_out, tokens = dict(tally.left_out.most_common()), dict(tally.tokens.most_common())
    if as_json:
        told = {"event": "stopped", "recorded": tally.recorded, "left_out": left_out, "tokens": tokens}
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{tally.recorded} exchanges recorded in {folder}")
    for model, count in tokens.items():
        typer.echo(f"  {model}: {count} tokens")
    for reason, count in left_out.items():
        typer.echo(f"  {count} not recorded: {reason}")


def key_of(variable: str | None, option: str = "--api-key-env") -> str | None:
    """The key in the environment variable that an option names."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"{option} {variable}: this environment variable is not set; put the key into it")
    return key


def _own_tools(
    specs: list[str] | None, approve: str, only: list[str] | None, tag: list[str] | None, base_url: str | None,
    auth: list[str] | None,
) -> OwnTools | None:  # fmt: skip
    from alpha_umi.serving.app import OwnTools
    from alpha_umi.tools import Approval, OpenApiOptions

    approval = Approval.of(approve, None)
    if not specs:
        return None
    return OwnTools(specs, OpenApiOptions(only or (), tag or (), base_url, auth or ()), approval)


def _name(model: Path | None, engine_file: Path | None) -> str:
    """Of the model, if none is given: that of the run's folder, or of the engine's file."""
    if engine_file is not None:
        return engine_file.stem
    return (model.resolve().name if model is not None else "") or "umi"
