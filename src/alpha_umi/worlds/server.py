"""The virtual API server: StableToolBench's protocol over HTTP.

    POST /virtual    a call; status 200 with ``{"error", "response"}``, whether or not the API failed
    GET  /health     {"status", "answered": how many calls were answered, by whom}

Only what is wrong with a request (400, 401, 403, 413, 415) or with the server (502: the simulator can't be reached,
which is not recorded) has another status.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from alpha_umi.data.records import reason
from alpha_umi.errors import UserError
from alpha_umi.serving.errors import ApiError, internal
from alpha_umi.serving.responses import as_json, error_response
from alpha_umi.serving.security import Guard, read_body
from alpha_umi.worlds.protocol import ANSWERED_BY_HEADER, FAILURE_HEADER, PATH, VirtualRequest
from alpha_umi.worlds.virtual import VirtualApis

BODY_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def create_world(apis: VirtualApis, api_key: str | None = None) -> FastAPI:
    """An application that serves virtual APIs, which belong to it while it runs.

    Args:
        apis: What answers.
        api_key: What clients have to send, as ``Authorization: Bearer KEY`` or, as ToolBench's do, in the header
            ``toolbench_key``; None takes only requests that come to this machine by a loopback name.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await apis.aclose()

    async def virtual(request: Request) -> Response:
        kept = await apis.answer(await _call(request))
        headers = {ANSWERED_BY_HEADER: kept.answered_by.encode("ascii", "replace").decode()}
        if kept.reply.failure is not None:
            headers[FAILURE_HEADER] = kept.reply.failure
        return Response(as_json(kept.reply.body()), 200, headers, "application/json")

    async def health() -> Response:
        return Response(as_json({"status": "ok", "answered": apis.answered}), media_type="application/json")

    app = FastAPI(title="α-UMi virtual APIs", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, key=api_key)
    app.add_middleware(_ToolBenchKey)
    for kind in (ApiError, HTTPException, UserError, Exception):
        app.add_exception_handler(kind, _on_error)
    app.post(PATH)(virtual)
    app.get("/health")(health)
    return app


class _ToolBenchKey:
    """Takes the header that ToolBench's clients send their key in for the usual one, where that is missing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if b"toolbench_key" in headers and b"authorization" not in headers:
            bearer = (b"authorization", b"Bearer " + headers[b"toolbench_key"])
            scope = {**scope, "headers": [*scope["headers"], bearer]}
        await self._app(scope, receive, send)


async def _call(request: Request) -> VirtualRequest:
    body = await read_body(request, BODY_BYTES)
    try:
        return VirtualRequest.model_validate_json(body)
    except ValidationError as error:
        raise ApiError(400, f"no call of the protocol: {reason(error)}", "invalid_call") from error


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error_response(error)
    if isinstance(error, HTTPException):
        return error_response(ApiError(error.status_code, str(error.detail), headers=error.headers or {}))
    if isinstance(error, UserError):
        _log.warning("no answer: %s", error)
        return error_response(ApiError(502, "no answer can be had now; the server's log says more", "no_answer"))
    _log.error("a request failed", exc_info=error)
    return error_response(internal())
