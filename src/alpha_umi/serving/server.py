"""Running the application: the socket, the line that says it is ready, and an end that lets streams finish."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from alpha_umi.errors import UserError

GRACE_SECONDS = 30


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any that is free.

    Raises:
        UserError: It can't.
    """
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(f"can't listen on {host}:{port}: {error.strerror or error}; choose another --port") from error


def base_url(bound: socket.socket) -> str:
    """What a client takes as its ``base_url``."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def serve(app: FastAPI, bound: socket.socket, ready: Callable[[], None], grace: int = GRACE_SECONDS) -> None:
    """Serves until SIGTERM or SIGINT; then nothing new is taken on, and open responses have ``grace`` seconds to end.

    After either it returns: whoever sends one wants the server to end, and it has. A second SIGINT ends it at once.

    Args:
        app: From `app.create_app`.
        bound: From `bind`; it is closed at the end.
        ready: Called once requests are taken.
        grace: Seconds.

    Raises:
        UserError: The tools that the server is to run can't be opened.
    """
    options: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    config = uvicorn.Config(app, timeout_graceful_shutdown=grace, timeout_keep_alive=30, **options)
    server = _Server(config, ready)
    failed = partial(getattr, app.state, "failure", None)
    # what can't be opened is told in one sentence, without uvicorn's traceback
    logging.getLogger("uvicorn.error").addFilter(lambda record: failed() is None)
    try:
        with returning_when_stopped():
            server.run(sockets=[bound])
    except SystemExit:
        failure = failed()
        if failure is None:
            raise
        raise failure from None


@contextmanager
def returning_when_stopped() -> Iterator[None]:
    """Uvicorn raises a signal again once it has shut down, for whoever handled it before; here nobody has to."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, frame: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
