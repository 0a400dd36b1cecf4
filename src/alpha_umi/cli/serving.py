"""`umi serve`: a run as a model that any OpenAI client can call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpha_umi import compute
from alpha_umi.cli.options import Auth, BaseUrl, Constrain, EngineFile, Model, Only, Tag, Variant
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from alpha_umi.serving.app import OwnTools

_BODY = 1 << 20


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
) -> None:
    """Serve a run at an OpenAI-compatible endpoint; prints its base_url when it is ready."""
    from alpha_umi.engines.load import chosen_source, open_engine

    source = chosen_source(model, None, None, None, None, engine=engine_file)
    try:
        from alpha_umi.serving import app, server
        from alpha_umi.serving.limits import ServerLimits
        from alpha_umi.serving.security import check_binding
    except ModuleNotFoundError as error:
        raise UserError(f"umi serve needs the package {error.name}: install alpha-umi[serve]") from error
    key = _key(api_key_env)
    check_binding(host, key)
    limits = ServerLimits(concurrency=concurrency, queue=queue, body_bytes=max_body)
    own = _own_tools(tools, approve, only, tag, base_url, auth)
    compute.use_all_cores()
    with server.bind(host, port) as bound, open_engine(source, constrain=constrain, variant=variant) as engine:
        name = served_model_name or _name(model, engine_file)
        application = app.create_app(engine, name, limits=limits, api_key=key, tools=own)
        server.serve(application, bound, lambda: typer.echo(f"serving {name} at {server.base_url(bound)}"))


def _key(variable: str | None) -> str | None:
    """The key in an environment variable."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"--api-key-env {variable}: this environment variable is not set; put the key into it")
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
