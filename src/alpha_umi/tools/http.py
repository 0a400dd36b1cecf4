"""HTTP for tools: bounded in time and bytes, and unable to reach what the user did not name or the public can't reach.

`HttpClient.send` returns a `Reply` or raises `ToolError`, of a kind:

    http_404 (and so on)   the status is 400 or more; the message has the beginning of the body
    timeout                no complete reply in time (redirects, retries and waiting included)
    connection             no such host, no connection, or it broke
    too_large              the body, unpacked, is over the limit; the message has its beginning
    refused_address        a redirect, or a name, led to an address that is not public
    refused_redirect       a redirect would send the call's body to another host
    too_many_redirects     more than the limit
    bad_reply              the body can't be unpacked

It sends no cookies of its own, follows no proxy settings of the environment and logs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpcore2
import httpx2

from alpha_umi.errors import ToolError
from alpha_umi.tools.addresses import AddressPolicy, CheckedTransport, Resolver, system_resolver

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
BUSY_STATUSES = frozenset({429, 502, 503, 504})
"""Of a server that may answer if it is asked again."""
_CHARSETS = frozenset({"utf-8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252", "utf-16", "utf-16le"})
_TEXT_TYPES = frozenset({"json", "xml", "javascript", "yaml", "x-yaml", "x-ndjson", "x-www-form-urlencoded"})
_UNSPECIFIC_TYPES = frozenset({"application/octet-stream", "binary/octet-stream", "application/vnd.oai.openapi"})
_NEUTRAL_HEADERS = {
    "Accept": "application/json, text/*;q=0.9, */*;q=0.1",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "alpha-umi",
}
_BEGINNING = 1000  # characters of a body that an error shows


@dataclass(frozen=True)
class HttpLimits:
    """What one call may cost.

    Attributes:
        timeout: Seconds from the first connection to the last byte.
        response_bytes: Bytes of a body, after unpacking.
        redirects: Hops after the first request.
        retries: Further attempts of an idempotent call that met a busy server or a broken connection.
    """

    timeout: float = 30.0
    response_bytes: int = 2**20
    redirects: int = 5
    retries: int = 2


@dataclass(frozen=True)
class HttpRequest:
    """What to send. ``headers`` and ``body`` may hold secrets and are not part of the representation."""

    method: str
    url: httpx2.URL
    headers: dict[str, str]
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url.host})"


@dataclass(frozen=True)
class Reply:
    """A complete answer.

    Attributes:
        status: The HTTP status.
        text: The body; of one that is no text, a placeholder in brackets.
        complete: Whether the body ended before the limit.
        location: Where a redirect leads to, or None.
        retry_after: Seconds the server asks to wait, or None.
    """

    status: int
    text: str
    complete: bool = True
    location: str | None = None
    retry_after: float | None = None


class HttpClient:
    """Sends requests within limits and address rules. Belongs to the event loop of its first request.

    Args:
        trusted: URLs that the user gave; their hosts and ports may be in a private network.
        limits: What one call may cost.
        hide: Replaces secrets in every text that is returned or raised.
        resolve: Finds a host's addresses.
        sleep: Waits between attempts.
        network: Makes the connections, to addresses that were already checked.
    """

    def __init__(
        self,
        trusted: Iterable[str],
        *,
        limits: HttpLimits | None = None,
        hide: Callable[[str], str] = str,
        resolve: Resolver = system_resolver,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self.limits = limits or HttpLimits()
        self._hide = hide
        self._sleep = sleep
        policy = AddressPolicy(frozenset(itertools.chain.from_iterable(map(_reachable, trusted))), resolve)
        self._transport = CheckedTransport(policy, network)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._transport.aclose()

    async def send(self, request: HttpRequest) -> Reply:
        """Sends a request; follows redirects, and retries what can be repeated safely.

        Raises:
            ToolError: See the module's docstring.
        """
        try:
            async with asyncio.timeout(self.limits.timeout):
                reply = await self._attempts(request)
        except TimeoutError:
            raise ToolError("timeout", f"no complete reply within {self.limits.timeout:g} seconds") from None
        except ToolError as error:
            raise ToolError(error.kind, self._hide(str(error))) from None
        reply = replace(reply, text=self._hide(reply.text))
        self._raise_for(reply)
        return reply

    def _raise_for(self, reply: Reply) -> None:
        # half the limit at most: a secret that the limit cut in two could not be hidden
        length = min(_BEGINNING, self.limits.response_bytes // 2)
        beginning = reply.text[:length] + ("..." if len(reply.text) > length else "")
        if reply.status >= 400:
            phrase = status_phrase(reply.status)
            raise ToolError(f"http_{reply.status}", f"{phrase}: {beginning}" if beginning else phrase)
        if not reply.complete:
            limit = self.limits.response_bytes
            raise ToolError("too_large", f"the reply is larger than {limit} bytes; it begins: {beginning}")

    async def _attempts(self, request: HttpRequest) -> Reply:
        clock = asyncio.get_running_loop().time
        end = clock() + self.limits.timeout
        retries = self.limits.retries if request.method in _IDEMPOTENT else 0
        attempt = 0
        while True:
            wait = seconds_before_retry(attempt)
            try:
                reply = await self._follow(request)
                wait = seconds_before_retry(attempt, reply.retry_after)
                if reply.status not in BUSY_STATUSES or attempt == retries or clock() + wait >= end:
                    return reply
            except ToolError as error:
                if error.kind != "connection" or attempt == retries or clock() + wait >= end:
                    raise
            attempt += 1
            await self._sleep(wait)

    async def _follow(self, request: HttpRequest) -> Reply:
        for _ in range(self.limits.redirects + 1):
            reply = await self._exchange(request)
            if reply.location is None:
                return reply
            request = _redirected(request, reply.status, reply.location)
        raise ToolError("too_many_redirects", f"more than {self.limits.redirects} redirects")

    async def _exchange(self, request: HttpRequest) -> Reply:
        headers = httpx2.Headers(_NEUTRAL_HEADERS)
        headers.update(request.headers)
        sent = httpx2.Request(request.method, request.url, headers=headers, content=request.body)
        try:
            response = await self._transport.handle_async_request(sent)
            try:
                return await self._read(response)
            finally:
                await response.aclose()
        except httpx2.DecodingError as error:
            raise ToolError("bad_reply", "the reply's compression is broken") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
            host = request.url.host
            raise ToolError("connection", f"no connection to {host}, or it broke ({type(error).__name__})") from error

    async def _read(self, response: httpx2.Response) -> Reply:
        redirect = response.headers.get("location") if response.status_code in _REDIRECTS else None
        if redirect is not None:
            return Reply(response.status_code, "", location=redirect)
        body, limit = bytearray(), self.limits.response_bytes
        async with contextlib.aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    break
        return Reply(
            response.status_code,
            _text(response.headers.get("content-type", ""), bytes(body[:limit])),
            complete=len(body) <= limit,
            retry_after=retry_after_seconds(response.headers.get("retry-after", "")),
        )


def parse_url(text: str) -> httpx2.URL:
    """An absolute http or https URL without credentials in it.

    Raises:
        ValueError: It is none; the message says why and doesn't repeat the text, which may hold a secret.
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise ValueError("it is no valid URL") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("it does not begin with http:// or https:// and a host")
    if url.userinfo:
        raise ValueError("it has a user name or password in it; give these by an environment variable")
    return url


def _port(url: httpx2.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _reachable(trusted: str) -> set[tuple[str, int]]:
    """Host and port of a URL; both standard ports if it names none, as sites move between http and https."""
    url = parse_url(trusted)
    host = url.raw_host.decode("ascii").lower()
    return {(host, url.port)} if url.port else {(host, 80), (host, 443)}


def _redirected(request: HttpRequest, status: int, location: str) -> HttpRequest:
    """The request that a redirect asks for; to another host it carries no body and none of the caller's headers."""
    try:
        url = parse_url(str(request.url.join(location)))
    except (httpx2.InvalidURL, ValueError) as error:
        raise ToolError("refused_address", "a redirect leads to no usable http or https address") from error
    turned = (status == 303 and request.method != "HEAD") or (status in (301, 302) and request.method == "POST")
    method = "GET" if turned else request.method
    if not _same_site(request.url, url):
        if method not in ("GET", "HEAD"):
            raise ToolError("refused_redirect", f"a redirect would send the body of this {method} to another host")
        return HttpRequest(method, url, {})
    if not turned:
        return replace(request, url=url)
    headers = {name: value for name, value in request.headers.items() if name.lower() != "content-type"}
    return HttpRequest(method, url, headers)


def _same_site(one: httpx2.URL, other: httpx2.URL) -> bool:
    """Whether two URLs have one origin, or the second is the first moved from http to https on the standard ports."""
    if one.raw_host.lower() != other.raw_host.lower():
        return False
    if one.scheme == other.scheme:
        return _port(one) == _port(other)
    return (one.scheme, _port(one), _port(other)) == ("http", 80, 443)


def seconds_before_retry(attempt: int, retry_after: float | None = None) -> float:
    """Seconds to wait after an attempt (the first is 0): what the server asks for, or twice as long each time."""
    return 0.5 * 2**attempt if retry_after is None else retry_after


def retry_after_seconds(retry_after: str) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or as a date; None if it says neither."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def status_phrase(status: int) -> str:
    """What a status code means, in words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"


def _text(content_type: str, body: bytes) -> str:
    """The body as text, whatever its bytes are; a placeholder for what is no text.

    The content type decides; where there is none, or one that says nothing, the body is text if it is UTF-8.
    """
    header = Message()
    header["Content-Type"] = content_type if content_type.isprintable() else ""
    kind = header.get_content_type() if content_type else ""
    if not _is_text(kind, body):
        return f"[{kind or 'binary data'}, {len(body)} bytes, not shown]"
    charset = str(header.get_param("charset") or "utf-8").lower()
    return body.decode(charset if charset in _CHARSETS else "utf-8", errors="replace").removeprefix("\ufeff")


def _is_text(kind: str, body: bytes) -> bool:
    family, _, name = kind.partition("/")
    if kind and kind not in _UNSPECIFIC_TYPES:
        return not body or family == "text" or name in _TEXT_TYPES or name.endswith(("+json", "+xml", "+yaml"))
    try:
        return "\0" not in body.decode()
    except UnicodeDecodeError:
        return False
