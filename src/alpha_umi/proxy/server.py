"""Running the proxy: until it is told to stop, with time for what is under way."""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette

from alpha_umi.proxy.limits import ProxyLimits
from alpha_umi.proxy.upstream import upstream_url
from alpha_umi.serving.server import base_url, returning_when_stopped


def serve(app: Starlette, bound: socket.socket, limits: ProxyLimits) -> None:
    """Serves until SIGTERM or SIGINT; then open responses have their time to end, and what was recorded is written.

    Belongs to the main thread. A second SIGINT cuts the time short.

    Args:
        app: From `app.create_proxy`.
        bound: From `alpha_umi.serving.server.bind`, which takes connections from then on.
        limits: How much time that is.
    """
    with returning_when_stopped():
        uvicorn.Server(configuration(app, limits)).run(sockets=[bound])


def configuration(app: Starlette, limits: ProxyLimits) -> uvicorn.Config:
    """Uvicorn's, so that it adds nothing to what is passed on."""
    return uvicorn.Config(
        app, ws="none", lifespan="on", log_level="critical", access_log=False, server_header=False, date_header=False,
        proxy_headers=False, timeout_graceful_shutdown=limits.grace_seconds, timeout_keep_alive=30,
    )  # fmt: skip


def address(bound: socket.socket, upstream: str) -> str:
    """What clients take as their ``base_url`` in place of the upstream's."""
    return base_url(bound).removesuffix("/v1") + upstream_url(upstream).path.rstrip("/")
