"""The application: OpenAI's chat completions over one engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from alpha_umi.engines.base import Constrained, Engine
from alpha_umi.errors import UserError
from alpha_umi.serving.asked import Abilities
from alpha_umi.serving.completions import Completions
from alpha_umi.serving.errors import ApiError, internal
from alpha_umi.serving.limits import ServerLimits
from alpha_umi.serving.metrics import CONTENT_TYPE, Metrics
from alpha_umi.serving.responses import as_json, error_response
from alpha_umi.serving.security import Guard
from alpha_umi.serving.wire import ChatRequest
from alpha_umi.serving.worker import Worker
from alpha_umi.tools import Approval, OpenApiOptions
from alpha_umi.tools.sources import open_sources

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnTools:
    """Tools that the server runs itself.

    Attributes:
        specs: As behind ``--tools``.
        openapi: Holds for the OpenAPI documents among them.
        approval: Which calls are made; there is nobody to ask, so that what has to be confirmed is refused.
    """

    specs: Sequence[str]
    openapi: OpenApiOptions = field(default_factory=OpenApiOptions)
    approval: Approval = field(default_factory=Approval)


def create_app(
    engine: Engine,
    name: str,
    *,
    limits: ServerLimits | None = None,
    api_key: str | None = None,
    tools: OwnTools | None = None,
) -> FastAPI:
    """An application that serves one engine, which belongs to it while it runs.

    Args:
        engine: What generates. Only one with `engines.stream.Continuous` takes requests on while others generate.
        name: Of the model, to clients.
        limits: What is taken on.
        api_key: What clients have to send, on every route but ``/health``; None wants none, and takes only requests
            that come to this machine by a loopback name.
        tools: Tools that the server runs; None hands calls to clients. Their state is shared by all clients.
    """
    service = _Service(engine, name, limits or ServerLimits(), tools)
    app = FastAPI(title="α-UMi", docs_url=None, redoc_url=None, lifespan=service.lifespan)
    app.add_middleware(Guard, key=api_key)
    for kind in (ApiError, HTTPException, Exception):
        app.add_exception_handler(kind, _on_error)
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema(name)}}}}
    app.post("/v1/chat/completions", openapi_extra=body, responses=_SAID)(service.completions.complete)
    app.get("/v1/models")(service.models)
    app.get("/v1/models/{model:path}")(service.model)
    app.get("/health")(service.health)
    app.get("/metrics", response_class=PlainTextResponse)(service.metrics)
    return app


_SAID: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A chat completion, or its chunks as server-sent events.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}


def _schema(name: str) -> dict[str, Any]:
    """The schema of a request to this model, with its parts where they are used."""
    schema = ChatRequest.model_json_schema()
    schema["properties"]["model"] = {"type": "string", "enum": [name]}
    parts = schema.pop("$defs")

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(one) for one in value]
        if not isinstance(value, dict):
            return value
        part = str(value.get("$ref", "")).rpartition("/")[2]
        return whole(parts[part]) if part in parts else {key: whole(one) for key, one in value.items()}

    return whole(schema)


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error_response(error)
    if isinstance(error, HTTPException):
        return error_response(ApiError(error.status_code, str(error.detail), headers=error.headers or {}))
    _log.error("a request failed", exc_info=error)
    return error_response(internal())


class _Service:
    """The routes, and what they share."""

    def __init__(self, engine: Engine, name: str, limits: ServerLimits, tools: OwnTools | None) -> None:
        self._name, self._tools = name, tools
        self._created = int(time.time())
        self._metrics = Metrics()
        self._worker = Worker(engine, limits, self._metrics, tools.approval if tools else Approval())
        abilities = Abilities(
            name,
            isinstance(engine, Constrained) and engine.constrained,
            engine.renderer.voices == "single",
            tools is not None,
            engine.context * max(map(len, engine.renderer.tokenizer.get_vocab())),
        )
        fingerprint = f"fp_{engine.renderer.fingerprint}"
        self.completions = Completions(self._worker, self._metrics, abilities, limits, fingerprint)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Works from when the tools are open until the server ends."""
        async with AsyncExitStack() as stack:
            if self._tools is not None:
                try:
                    source = await open_sources(self._tools.specs, "", self._tools.openapi)
                except UserError as error:
                    app.state.failure = error
                    raise
                stack.push_async_callback(source.aclose)
                self.completions.source = source
            self._worker.start(asyncio.get_running_loop())
            stack.push_async_callback(asyncio.to_thread, self._worker.stop)
            yield

    # -- routes

    async def health(self) -> Response:
        """Whether the server works."""
        alive = self._worker.alive
        return Response(
            as_json({"status": "ok" if alive else "failed"}), 200 if alive else 503, None, "application/json"
        )

    async def metrics(self) -> Response:
        """What the server has done, for Prometheus."""
        worker = self._worker
        gauges = (
            ("running", lambda: worker.running), ("waiting", lambda: worker.waiting),
            ("remembered_conversations", lambda: worker.remembered),
        )  # fmt: skip
        return Response(self._metrics.text(gauges), headers={"content-type": CONTENT_TYPE})

    async def models(self) -> Response:
        """The one model there is."""
        return Response(as_json({"object": "list", "data": [self._model()]}), media_type="application/json")

    async def model(self, model: str) -> Response:
        """The model of this name."""
        if model != self._name:
            raise ApiError(404, f"there is no model {model[:100]!r}", "model_not_found", "model")
        return Response(as_json(self._model()), media_type="application/json")

    def _model(self) -> dict[str, Any]:
        return {"id": self._name, "object": "model", "created": self._created, "owned_by": "alpha-umi"}
