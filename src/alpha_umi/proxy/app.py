"""The application: every request goes to the upstream and every response back, byte for byte and as it comes.

What the proxy itself has to say is an error in OpenAI's shape: 502 where there is no upstream, 504 where it doesn't
answer in time. A response that breaks off is broken off towards the client too, and a client that leaves takes the
request to the upstream with it. WebSockets are not passed on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from alpha_umi.proxy.headers import end_to_end
from alpha_umi.proxy.limits import ProxyLimits
from alpha_umi.proxy.recorder import Recorder
from alpha_umi.proxy.tape import Tape
from alpha_umi.proxy.upstream import Upstream, upstream_url
from alpha_umi.serving.errors import ApiError
from alpha_umi.serving.responses import error_response
from alpha_umi.serving.security import Guard

_log = logging.getLogger(__name__)


def create_proxy(
    upstream: str,
    recorder: Recorder,
    *,
    limits: ProxyLimits | None = None,
    api_key: str | None = None,
    upstream_key: str | None = None,
) -> Starlette:
    """An application that passes everything on to ``upstream``.

    Args:
        upstream: What clients had as their ``base_url``; paths stay what they are.
        recorder: Works while the application does.
        limits: How long it waits, and what it keeps.
        api_key: What clients have to send as ``Authorization: Bearer``, on every route but ``/health``; it goes no
            further. None passes their ``Authorization`` on, and takes only requests that come to this machine by a
            loopback name.
        upstream_key: With ``api_key``, what the upstream is sent in its place.

    Raises:
        UserError: ``upstream`` is no URL.
    """
    url, limits = upstream_url(upstream), limits or ProxyLimits()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        passing.upstream = Upstream(url, limits, api_key is not None, upstream_key)
        recorder.start()
        try:
            yield
        finally:
            await passing.upstream.aclose()
            await asyncio.to_thread(recorder.stop)

    passing = _Passing(recorder)
    return Starlette(routes=[Mount("/", passing)], middleware=[Middleware(Guard, key=api_key)], lifespan=lifespan)


class _Gone(Exception):
    """The client has left."""


class _Upload:
    """A request's body, on its way."""

    def __init__(self, scope: Scope, receive: Receive, tape: Tape | None) -> None:
        self._receive, self._tape = receive, tape
        self._read = asyncio.Event()
        names = {key.lower() for key, _ in scope["headers"]}
        self.present = b"content-length" in names or b"transfer-encoding" in names
        if not self.present:
            self._read.set()

    async def parts(self) -> AsyncIterator[bytes]:
        """Its parts as they come.

        Raises:
            _Gone: The client left in the middle.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part, more = message.get("body", b""), message.get("more_body", False)
            if self._tape is not None:
                self._tape.request.add(part)
            if part:
                yield part
        self._read.set()

    async def left(self) -> None:
        """Waits until the client leaves; before its body is read, `parts` sees that."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class _Passing:
    """Passes on one request after the other, many at a time."""

    upstream: Upstream

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One exchange, from the request to the end of the response or the leaving of the client."""
        tape = self._recorder.tape(scope)
        upload = _Upload(scope, receive, tape)
        passing = asyncio.create_task(self._pass_on(scope, receive, upload, send, tape))
        leaving = asyncio.create_task(upload.left())
        try:
            await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not passing.done():
                passing.cancel()
            await asyncio.gather(passing, leaving, return_exceptions=True)
            if tape is not None:
                self._recorder.keep(tape)
        if not passing.cancelled():
            passing.result()

    async def _pass_on(
        self, scope: Scope, receive: Receive, upload: _Upload, send: Send, tape: Tape | None
    ) -> None:  # fmt: skip
        try:
            response = await self.upstream.send(scope, upload.parts() if upload.present else None)
        except _Gone:
            return
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            await error_response(_no_response(error))(scope, receive, send)
            return
        try:
            await self._pass_back(response, send, tape)
        except httpx2.TransportError as error:
            # the response has begun: leaving it without an end is how the client gets to know
            _log.warning("the upstream broke a response off: %s", type(error).__name__)
        finally:
            await response.aclose()

    async def _pass_back(self, response: httpx2.Response, send: Send, tape: Tape | None) -> None:
        headers = end_to_end(response.headers.raw)
        if tape is not None:
            tape.answered(response.status_code, headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        async for part in response.aiter_raw():
            if tape is not None:
                tape.response.add(part)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if tape is not None:
            tape.complete = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _no_response(error: Exception) -> ApiError:
    if isinstance(error, httpx2.InvalidURL):
        return ApiError(400, "the request's path can't be passed on", "invalid_path")
    _log.warning("no response of the upstream: %s", type(error).__name__)
    if isinstance(error, httpx2.TimeoutException):
        return ApiError(504, "the proxy's upstream did not answer in time", "upstream_timeout")
    return ApiError(502, f"the proxy can't reach its upstream ({type(error).__name__})", "upstream_unreachable")
