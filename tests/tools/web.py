"""A real HTTP server on a loopback port whose every byte a test decides, and a network of the test's own names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httpcore2

Handler = Callable[["Received", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Web:
    """What a server saw."""

    port: int
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.received]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Web]:
    """Serves until the block ends; `Web.gone` is set when a client has left while its request was handled."""
    web = Web(0)
    tasks: set[asyncio.Task[Any]] = set()
    over: list[bool] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if over:  # accepted just before the end
            writer.close()
            return
        tasks.add(task)
        web.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                web.received.append(request)
                await handler(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            web.gone.set()
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()
        over.append(True)
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Received(method, target, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def respond(writer: asyncio.StreamWriter, status: int = 200, body: bytes = b"", **headers: str) -> None:
    """Writes a whole response; header names have underscores for hyphens."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


def answering(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    """A handler that always gives the same response."""

    async def handler(request: Received, writer: asyncio.StreamWriter) -> None:
        respond(writer, status, body, **headers)

    return handler


class Names:
    """A resolver that knows the test's names, each with its answers in turn, and numeric addresses."""

    def __init__(self, **names: list[str] | str) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.names.get(host, host)
        answer = answers.pop(0) if isinstance(answers, list) else answers
        return answer.split()


class Wire(httpcore2.AsyncNetworkBackend):
    """A network in which every public address is a server on loopback; notes where connections went."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connected: list[tuple[str, int]] = []
        self.server_names: list[str | None] = []
        self._real = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore2.AsyncNetworkStream:
        self.connected.append((host, port))
        inner = await self._real.connect_tcp("127.0.0.1", self.port, *args, **kwargs)
        return _Stream(inner, self.server_names)


class _Stream(httpcore2.AsyncNetworkStream):
    """A stream that notes the name TLS is to be checked for, and goes on in clear text."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream, server_names: list[str | None]) -> None:
        self._inner, self._server_names = inner, server_names

    async def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        self._server_names.append(server_hostname)
        return self

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return None if info == "ssl_object" else self._inner.get_extra_info(info)
