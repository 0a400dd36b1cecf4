"""A session with an MCP server: the SDK's client, held open by a task of its own.

The client's parts have to be left in the task that entered them, while calls come from whatever task makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AsyncExitStack

import mcp_types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

import alpha_umi
from alpha_umi.errors import ToolError
from alpha_umi.tools.addresses import Resolver
from alpha_umi.tools.mcp_http import McpHttpTransport, http_client
from alpha_umi.tools.mcp_server import MESSAGE_BYTES, HttpServer, StdioServer
from alpha_umi.tools.mcp_stdio import StdioTransport

_CLOSE_SECONDS = 8.0
_LISTENS = 20
_LISTEN_AGAIN_SECONDS = 1.0
_NAME = mcp_types.Implementation(name="alpha-umi", version=alpha_umi.__version__)


class Session:
    """One connection, from `Session.open`.

    Attributes:
        client: Makes requests; from any task of the event loop.
        changed: The server's list of tools has to be read; it has not been yet, or the server says that it is another.
        doubted: A call had to be stopped, and nothing has been heard of the server since.
    """

    client: Client

    def __init__(self, server: StdioServer | HttpServer, resolve: Resolver) -> None:
        self.changed = True
        self.doubted = False
        self._over = False
        self._stdio = StdioTransport(server) if isinstance(server, StdioServer) else None
        self._http = None if isinstance(server, StdioServer) else (server, McpHttpTransport(server, resolve))
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._holder = asyncio.create_task(self._hold())

    @classmethod
    async def open(cls, server: StdioServer | HttpServer, resolve: Resolver) -> Session:
        """Connects.

        Raises:
            ToolError: ``died`` or ``connection``: why that is not possible.
        """
        session = cls(server, resolve)
        try:
            await session._ready
        except BaseException:
            await session.close()
            raise
        return session

    @property
    def over_http(self) -> bool:
        """Whether the server is somebody else's process."""
        return self._stdio is None

    @property
    def lost(self) -> bool:
        """Whether the server no longer knows the session."""
        return self._http is not None and self._http[1].lost

    @property
    def ended(self) -> bool:
        """Whether no call can be made any more."""
        return self._over or self.lost or self._holder.done()

    @ended.setter
    def ended(self, value: bool) -> None:
        self._over = value

    @property
    def fault(self) -> ToolError | None:
        """Why a process's connection ended; None for a connection over HTTP."""
        if self._stdio is None:
            return None
        return self._stdio.fault or ToolError("died", "the server's process ended")

    async def close(self) -> None:
        """Ends the session; a process is gone afterwards."""
        if self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None:
            self._stop.set()
        else:
            self._holder.cancel()
        _, late = await asyncio.wait({self._holder}, timeout=_CLOSE_SECONDS)
        if late:
            self._holder.cancel()
            await asyncio.wait({self._holder})

    async def _hold(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                self.client = await self._entered(stack)
                following = asyncio.create_task(self._follow())
                stack.callback(following.cancel)
                if not self._ready.done():
                    self._ready.set_result(None)
                await self._stop.wait()
        except (Exception, asyncio.CancelledError) as error:  # a session that ends by itself fails its own calls
            if not self._ready.done():
                self._ready.set_exception(self._reason(error))

    async def _entered(self, stack: AsyncExitStack) -> Client:
        if self._stdio is not None:
            transport = self._stdio
        else:
            assert self._http is not None
            web = await stack.enter_async_context(http_client(*self._http))
            url = self._http[0].url
            transport = streamable_http_client(url, http_client=web, max_sse_event_size=MESSAGE_BYTES)
        client = Client(transport, message_handler=self._heard, client_info=_NAME, cache=None)
        return await stack.enter_async_context(client)

    async def _heard(self, message: object) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self.changed = True

    async def _follow(self) -> None:
        """Notes changes of the list of tools where a server tells of them only if it is asked to."""
        tools = self.client.server_capabilities.tools
        if self.client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or not tools.list_changed:
            return
        for _ in range(_LISTENS):
            try:
                with contextlib.suppress(SubscriptionLost):
                    async with self.client.listen(tools_list_changed=True) as changes:
                        self.changed = True  # what happened before, nobody has told
                        async for _ in changes:
                            self.changed = True
            except (MCPError, TimeoutError, RuntimeError):  # the server doesn't tell after all, or the session is over
                return
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)

    def _reason(self, error: BaseException) -> ToolError:
        for cause in _leaves(error):
            if isinstance(cause, ToolError):
                return cause
            if isinstance(cause, FileNotFoundError | PermissionError | NotADirectoryError):
                return ToolError("died", f"the server can't be started: {cause.strerror}; check its command")
        if self._stdio is not None:
            words = self._stdio.last_words
            said = f"; its last words: {words}" if words else ""
            return self._stdio.fault or ToolError("died", f"the server's process ended before it answered{said}")
        cause = next(_leaves(error))
        if isinstance(cause, MCPError):
            return ToolError("connection", cause.message)
        return ToolError("connection", f"the connection failed ({type(cause).__name__})")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
