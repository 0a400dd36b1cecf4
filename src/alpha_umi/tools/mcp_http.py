"""The way to an MCP server over streamable HTTP, within the address rules and bounds that hold for all tools.

The SDK's transport ends a session when the network fails, and reads a reply of any length. Here whatever goes wrong
with one request is the answer to that request: a JSON-RPC error whose ``data`` says the kind, as in `http`, and after
how many seconds the server may be asked again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2
import mcp_types

from alpha_umi.errors import ToolError
from alpha_umi.tools.addresses import AddressPolicy, CheckedTransport, Resolver
from alpha_umi.tools.http import parse_url, retry_after_seconds, status_phrase
from alpha_umi.tools.mcp_server import MESSAGE_BYTES, HttpServer

_KEY = "alpha_umi"
_ERROR_BYTES = 64 * 1024
_BEGINNING = 1000  # characters of a body that an error shows
_NETWORK = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)


@dataclass(frozen=True)
class Fault:
    """What went wrong with a request.

    Attributes:
        kind: As of a `ToolError`.
        retry_after: Seconds after which the server wants to be asked again, or None.
    """

    kind: str
    retry_after: float | None = None

    @classmethod
    def of(cls, data: Any) -> Fault | None:
        """The fault in an error's ``data``, if there is one."""
        found = data.get(_KEY) if isinstance(data, dict) else None
        if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
            return None
        wait = found.get("retry_after")
        return cls(found["kind"], float(wait) if isinstance(wait, int | float) else None)


class McpHttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests to one server; see the module's docstring.

    Attributes:
        lost: The server no longer knows the session, and a new one has to be begun.
    """

    def __init__(self, server: HttpServer, resolve: Resolver) -> None:
        url = parse_url(server.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        policy = AddressPolicy(frozenset({(url.raw_host.decode("ascii").lower(), port)}), resolve)
        self._inner = CheckedTransport(policy)
        self.lost = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request; never raises for what the network or the server did wrong."""
        try:
            response = await self._inner.handle_async_request(request)
            try:
                return await self._answer(request, response)
            except BaseException:
                await response.aclose()
                raise
        except ToolError as error:
            return _failure(502, error.kind, str(error))
        except _NETWORK as error:
            host = request.url.host
            return _failure(502, "connection", f"no connection to {host}, or it broke ({type(error).__name__})")

    async def _answer(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        status, headers = response.status_code, response.headers
        if status >= 400:
            self.lost = self.lost or (status == 404 and "mcp-session-id" in request.headers)
            return _refusal(response, (await _body(response, _ERROR_BYTES))[:_ERROR_BYTES])
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ToolError("bad_reply", "the reply is compressed, which it was not asked to be")
        if headers.get("content-type", "").lower().startswith("text/event-stream"):
            return httpx2.Response(status, headers=headers, stream=_Events(response))
        body = await _body(response, MESSAGE_BYTES)
        if len(body) > MESSAGE_BYTES:
            raise ToolError("too_large", f"the reply is larger than {MESSAGE_BYTES} bytes")
        return httpx2.Response(status, headers=headers, content=body)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._inner.aclose()


def http_client(server: HttpServer, transport: McpHttpTransport) -> httpx2.AsyncClient:
    """A client that sends the server's headers, follows no redirect by itself and no setting of the environment."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "alpha-umi", **server.headers}
    return httpx2.AsyncClient(transport=transport, headers=headers, trust_env=False, timeout=None)


class _Events(httpx2.AsyncByteStream):
    """A stream of events; whoever reads it bounds each of them."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async with aclosing(self._response.aiter_raw()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except _NETWORK as error:
            raise httpx2.StreamError(f"the connection broke ({type(error).__name__})") from error

    async def aclose(self) -> None:
        await self._response.aclose()


async def _body(response: httpx2.Response, limit: int) -> bytes:
    """The body, or of a longer one a little more than the limit."""
    body = bytearray()
    async with aclosing(response.aiter_raw()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                break
    await response.aclose()
    return bytes(body)


def _refusal(response: httpx2.Response, body: bytes) -> httpx2.Response:
    """A server's refusal: its own JSON-RPC error, or one that says the status and the beginning of the body."""
    status, text = response.status_code, body.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
        mcp_types.JSONRPCError.model_validate(answer)
        return httpx2.Response(status, json=answer)
    except (ValueError, RecursionError):
        phrase, beginning = status_phrase(status), text[:_BEGINNING]
    message = f"{phrase}: {beginning}" if beginning else phrase
    return _failure(status, f"http_{status}", message, retry_after_seconds(response.headers.get("retry-after", "")))


def _failure(status: int, kind: str, message: str, retry_after: float | None = None) -> httpx2.Response:
    data = {_KEY: {"kind": kind, "retry_after": retry_after}}
    error = {"code": mcp_types.INTERNAL_ERROR, "message": message, "data": data}
    return httpx2.Response(status, json={"jsonrpc": "2.0", "id": None, "error": error})
