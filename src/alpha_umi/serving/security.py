"""Who may ask, and how much: checked before anything of a request is read.

Without a key, only names of this machine are taken as the host, so that a web page in somebody's browser can't reach
the server under a name of its own (DNS rebinding); and a body has to say that it is JSON, which a page's form can't.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from alpha_umi.errors import UserError
from alpha_umi.serving.errors import ApiError
from alpha_umi.serving.responses import error_response

_OPEN = frozenset({"/health"})
_THROWN_AWAY = 8 << 20
"""Bytes of a body that is too large which are read all the same."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_binding(host: str, key: str | None) -> None:
    """Refuses to be open to everybody.

    Raises:
        UserError: The host can be reached from elsewhere, and there is no key.
    """
    if key is None and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines: give --api-key-env NAME, the environment variable with "
            "the key that clients have to send, or serve on 127.0.0.1"
        )


class Guard:
    """Lets only those requests through that have the key, or come to this machine by its own name.

    Args:
        app: What is guarded.
        key: What clients have to send; None wants none.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app, self._key = app, None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what it refuses itself."""
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            error = self._refusal(headers)
            if error is not None:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Mapping[str, str]) -> ApiError | None:
        if self._key is None:
            host = headers.get("host", "")
            name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
            if is_loopback(name):
                return None
            return ApiError(403, "this server is only for clients on its own machine", "forbidden_host")
        kind, _, given = headers.get("authorization", "").partition(" ")
        # headers are latin-1 and the key is UTF-8; bytes compare in constant time
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._key):
            return None
        return ApiError(
            401, "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'", "invalid_api_key", None,
            "authentication_error", {"WWW-Authenticate": "Bearer"},
        )  # fmt: skip


async def read_body(request: Request, most: int) -> bytes:
    """A request's body, if it is JSON of at most so many bytes.

    Of one that is larger, some more is read and thrown away: a client that is still sending when the connection is
    closed reads a reset, and not why.

    Raises:
        ApiError: 413 or 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the body must be JSON: send 'Content-Type: application/json'", "unsupported_media_type")
    too_large = ApiError(
        413, f"the body is larger than {most} bytes", "request_too_large", headers={"Connection": "close"}
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most + _THROWN_AWAY:
        raise too_large
    body, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            body += part
        elif size > most + _THROWN_AWAY:
            break
    if size > most:
        raise too_large
    return bytes(body)
