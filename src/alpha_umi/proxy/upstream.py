"""The model behind the proxy: where a request goes, and what is sent there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
from starlette.types import Scope

from alpha_umi.errors import UserError
from alpha_umi.proxy.headers import for_upstream
from alpha_umi.proxy.limits import ProxyLimits
from alpha_umi.tools.http import parse_url

_IDLE_CONNECTIONS = 100


def upstream_url(text: str) -> httpx2.URL:
    """The upstream as typed: what the application has as its ``base_url``.

    Raises:
        UserError: It is no such URL.
    """
    try:
        url = parse_url(text)
    except ValueError as error:
        raise UserError(f"--upstream: {error}; give the base_url that the application uses today") from error
    if url.query or url.fragment:
        raise UserError("--upstream: a base_url has no query and no fragment; give it without")
    return url


class Upstream:
    """Sends requests on, as they came, to one origin. Belongs to one event loop.

    TLS is verified against the system's certificates, or those of ``SSL_CERT_FILE``; the environment's proxies are
    used. Nothing is retried, no redirect followed and no cookie kept: all that is the client's to do.

    Args:
        url: From `upstream_url`; its path is not put before that of a request, which has it already.
        limits: How long it waits.
        own_keys: The clients' ``Authorization`` is for the proxy, and isn't sent on.
        key: The upstream's key, sent in its place.
    """

    def __init__(self, url: httpx2.URL, limits: ProxyLimits, own_keys: bool = False, key: str | None = None) -> None:
        self._url, self._own_keys = url, own_keys
        self._authorization = [] if key is None else [(b"Authorization", f"Bearer {key}".encode())]
        timeout = httpx2.Timeout(limits.silence_seconds, connect=limits.connect_seconds, pool=None)
        pool = httpx2.Limits(max_connections=None, max_keepalive_connections=_IDLE_CONNECTIONS)
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._client = httpx2.AsyncClient(timeout=timeout, limits=pool, cookies=no_cookies)

    async def send(self, scope: Scope, body: AsyncIterator[bytes] | None) -> httpx2.Response:
        """Sends a request and reads the response's head; its body is read, and it is closed, by the caller.

        Raises:
            httpx2.TransportError: There is no response.
            httpx2.InvalidURL: The path can't be one.
        """
        target: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        url = self._url.copy_with(raw_path=target)
        # where the library would spell the path in another way, it is told to leave it
        extensions = {} if url.raw_path == target else {"target": target}
        headers = self._headers(scope["headers"])
        request = httpx2.Request(scope["method"], url, headers=headers, content=body, extensions=extensions)
        return await self._client.send(request, stream=True)

    def _headers(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers = for_upstream(given)
        if not self._own_keys:
            return headers
        rest = [(key, value) for key, value in headers if key.lower() != b"authorization"]
        return rest + self._authorization if len(rest) < len(headers) else rest

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._client.aclose()
