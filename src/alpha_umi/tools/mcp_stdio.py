"""A connection to an MCP server over the standard streams of a process that is started for it.

In place of the SDK's own, which reads a line of any length into memory and lets processes live on that a server has
started: here a message has a bound, and with the server its whole process group ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections import deque
from types import TracebackType

import anyio
import mcp_types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from alpha_umi.errors import ToolError
from alpha_umi.tools.mcp_server import MESSAGE_BYTES, StdioServer

_EXIT_SECONDS = 1.0
_POLL_SECONDS = 0.01
_ID = re.compile(rb'"id"\s*:\s*(\d{1,18})\b')
_HEAD = 256

_ToClient = MemoryObjectSendStream[SessionMessage | Exception]
_Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


class StdioTransport:
    """Starts a server's process when it is entered and ends it, with all that it has started, when it is left.

    A line of the server that is no message is passed over; if it has the id of a call, that call fails. What the
    server writes to its standard error is read all the time, and forgotten but for the end.

    Attributes:
        fault: Why the connection was broken off from here, or None.
    """

    def __init__(self, server: StdioServer) -> None:
        self._server = server
        self._stderr: deque[bytes] = deque(maxlen=8)
        self._tasks: list[asyncio.Task[None]] = []
        self.fault: ToolError | None = None

    @property
    def last_words(self) -> str:
        """The last two lines, or the end of them, that the server wrote to its standard error."""
        lines = b"".join(self._stderr).decode("utf-8", "replace").split("\n")
        return " ".join([line.strip() for line in lines if line.strip()][-2:])

    async def __aenter__(self) -> _Streams:
        """Starts the process.

        Raises:
            OSError: There is no such program, or it can't be started.
        """
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._server.command, stdin=pipe, stdout=pipe, stderr=pipe, limit=MESSAGE_BYTES,
            env=dict(self._server.environment), start_new_session=True,
        )  # fmt: skip
        to_client, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_client = anyio.create_memory_object_stream[SessionMessage](0)
        work = (self._read(to_client), self._write(from_client), self._listen())
        self._tasks = [asyncio.create_task(one) for one in work]
        return incoming, outgoing

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets the process end by itself for a moment, then terminates it, then kills its group."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            if not await self._exited():
                self._signal(signal.SIGTERM)
                await self._exited()
        finally:
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._emptied()

    async def _read(self, to_client: _ToClient) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        async with to_client:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                try:
                    while line := await stdout.readline():
                        message = _message(line)
                        if message is not None:
                            await to_client.send(SessionMessage(message))
                except ValueError:
                    self.fault = ToolError("too_large", f"the server sent a message of more than {MESSAGE_BYTES} bytes")
                    self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    async def _write(self, from_client: MemoryObjectReceiveStream[SessionMessage]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        async with from_client:
            with contextlib.suppress(ConnectionError):  # then the reader finds out that the process has ended
                async for sent in from_client:
                    text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                    stdin.write(text.encode() + b"\n")
                    await stdin.drain()

    async def _listen(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while data := await stderr.read(512):
            self._stderr.append(data)

    async def _exited(self) -> bool:
        """Whether the process ends within a moment; it may, while others still hold its streams open."""
        end = asyncio.get_running_loop().time() + _EXIT_SECONDS
        while self._process.returncode is None and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_POLL_SECONDS)
        return self._process.returncode is not None

    async def _emptied(self) -> None:
        """Reads the streams to their ends, so that they are closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                for stream in (self._process.stdout, self._process.stderr):
                    while stream is not None and await stream.read(2**16):
                        pass
                await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, number)
            else:
                self._process.kill()


def _message(line: bytes) -> mcp_types.JSONRPCMessage | None:
    """The message of a line; for what can't be read but has an id, a failure of the call with this id."""
    try:
        return mcp_types.jsonrpc_message_adapter.validate_json(line.decode("utf-8", "replace"), by_name=False)
    except ValueError:
        found = _ID.search(line[:_HEAD])
        if found is None or b'"method"' in line[:_HEAD]:
            return None
        broken = mcp_types.ErrorData(code=mcp_types.PARSE_ERROR, message="the server's reply is no valid message")
        return mcp_types.JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=broken)
