"""An MCP server as a tool source, through the SDK's client.

What a server does wrong is a `ToolError`, of a kind:

    tool_error          the tool itself says that it failed; the message is what it said
    server_error        any other error of the protocol
    bad_reply           the reply is against the protocol, or can't be read
    bad_result          the result is not what the tool's own schema of results says
    died                the server's process ended during the call
    too_large           a reply over the limit
    connection, refused_address, http_429 (and so on)       as in `http`

A call that is stopped, because its time is over or the run was cancelled, is told to the server, which goes on. If a
process then doesn't answer the next question either, it is killed and started anew, as one that has ended is; what it
kept in memory is lost. Tools that only read, or are idempotent, by what the server says of them, are called again if
the server died, broke off or was busy; no other tool is.

The session lives in the event loop that it was opened in, and moves only while that runs. A server's list of tools is
read again when it says that it has changed; a run keeps the tools that it began with. Questions of a server to a user
or a model (elicitation, sampling) and for files (roots) are declined.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types
from mcp import MCPError
from pydantic import ValidationError

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools.addresses import Resolver, system_resolver
from alpha_umi.tools.http import BUSY_STATUSES, seconds_before_retry
from alpha_umi.tools.mcp_http import Fault
from alpha_umi.tools.mcp_result import McpTool, read_tools, result_text
from alpha_umi.tools.mcp_server import HttpServer, StdioServer, read_server
from alpha_umi.tools.mcp_session import Session
from alpha_umi.tools.text import masked, observable
from alpha_umi.trajectory import Tool

Sleep = Callable[[float], Awaitable[None]]

START_SECONDS = 120.0
"""How long a server may take to start, which may be to be downloaded first."""
PROBE_SECONDS = 3.0
"""How long a process, of which a call had to be stopped, may take to answer."""
RETRIES = 2
LONGEST_WAIT = 10.0
"""Seconds; a server that wants to be asked again later than that is not."""
_WORTH_RETRYING = frozenset({"died", "connection", *(f"http_{status}" for status in BUSY_STATUSES)})
_PAGES = 100
_REASON_BYTES = 2000


class McpSource:
    """The tools of one server; from `open_mcp`. To be used in one event loop.

    Attributes:
        left_out: Tools of the server that can't be offered, with the reason.
    """

    def __init__(self, server: StdioServer | HttpServer, resolve: Resolver, sleep: Sleep) -> None:
        self._server = server
        self._resolve, self._sleep = resolve, sleep
        environment = {f"SECRET_{number}": secret for number, secret in enumerate(server.secrets)}
        self._hide: Callable[[str], str] = functools.partial(masked, environment=environment)
        self._lock = asyncio.Lock()
        self._session: Session | None = None
        self._offered: dict[str, McpTool] = {}
        self.left_out: dict[str, str] = {}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, in the server's order."""
        return tuple(one.tool for one in self._offered.values())

    @property
    def writes(self) -> frozenset[str]:
        """Names of the tools that may change something: all of which the server doesn't say that they only read."""
        return frozenset(name for name, one in self._offered.items() if one.writes)

    @property
    def in_order(self) -> frozenset[str]:
        """The same: what may change something happens in order."""
        return self.writes

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Calls a tool.

        Raises:
            ToolError: See the module's docstring.
        """
        offered = self._offered.get(name)
        if offered is None:
            raise ToolError("unknown_tool", f"the server no longer offers {name!r}")
        try:
            return self._hide(result_text(await self._attempts(offered, arguments)))
        except ToolError as error:
            raise ToolError(error.kind, self._hide(str(error))) from None

    async def aclose(self) -> None:
        """Ends the session, and the server if it was started for it."""
        if self._session is not None:
            await self._session.close()

    async def open(self) -> None:
        """Connects for the first time.

        Raises:
            UserError: The server can't be reached or started, or has no tools.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._connected()
        except (ToolError, TimeoutError) as error:
            await self.aclose()
            words = str(error) or f"it did not answer within {START_SECONDS:g} seconds"
            words = observable(self._hide(words), _REASON_BYTES)
            raise UserError(
                f"--tools mcp:{self._hide(str(self._server))}: {words}; see that it works by itself"
            ) from error
        if not self._offered:
            await self.aclose()
            reason = next((f" that can be offered: {why}" for why in self.left_out.values()), "")
            raise UserError(
                f"--tools mcp:{self._hide(str(self._server))}: the server has no tools{reason}; leave it out"
            )

    async def _attempts(self, offered: McpTool, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        for attempt in itertools.count():
            session = await self._connected()
            try:
                return await _called(session, offered.name, arguments)
            except _Failed as failure:
                forgotten = session.lost and attempt == 0  # the call did not get through, whatever it does
                again = offered.repeatable and attempt < RETRIES and failure.kind in _WORTH_RETRYING
                wait = seconds_before_retry(attempt, failure.retry_after)
                if not forgotten and (not again or wait > LONGEST_WAIT):
                    raise
                await self._sleep(0 if forgotten or session.ended else wait)
        raise AssertionError("unreachable")

    async def _connected(self) -> Session:
        """The session; a new one if the old one has ended or gives no sign of life. Its list of tools is read."""
        async with self._lock:
            session = self._session
            if session is not None and (session.ended or not await _answers(session)):
                await session.close()
                session = self._session = None
            if session is None:
                session = self._session = await Session.open(self._server, self._resolve)
            if session.changed:
                await self._list(session)
            return session

    async def _list(self, session: Session) -> None:
        session.changed = False
        try:
            offered, self.left_out = read_tools(await _listed(session))
            self._offered = {one.tool.name: one for one in offered}
        except BaseException:
            session.changed = True
            raise


async def open_mcp(spec: str, resolve: Resolver = system_resolver, sleep: Sleep = asyncio.sleep) -> McpSource:
    """Opens the tools of an MCP server.

    Args:
        spec: ``mcp:COMMAND LINE``, ``mcp:URL`` or ``mcp+URL``, with settings before; see `mcp_server`.
        resolve: Finds a host's addresses.
        sleep: Waits between attempts.

    Raises:
        UserError: It names no server, or the server can't be used.
    """
    logger = logging.getLogger("mcp")
    if not logger.handlers:  # the SDK's complaints about servers are for those who ask for logs, not for the terminal
        logger.addHandler(logging.NullHandler())
    source = McpSource(read_server(spec), resolve, sleep)
    await source.open()
    return source


class _Failed(ToolError):
    """A call that failed, and when it may be made again."""

    def __init__(self, kind: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(kind, message)
        self.retry_after = retry_after


async def _called(session: Session, name: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
    try:
        return await session.client.call_tool(name, arguments)
    except asyncio.CancelledError:
        session.doubted = True
        raise
    except MCPError as error:
        raise _failure(session, error) from error
    except ValidationError as error:
        raise _Failed("bad_reply", "the server's reply is against the protocol") from error
    except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
        session.ended = True
        raise _Failed("connection", "the connection to the server broke") from error
    except RuntimeError as error:  # how the SDK says that a result is against the tool's own schema, and other faults
        raise _Failed("bad_result", str(error)) from error


def _failure(session: Session, error: MCPError) -> _Failed:
    fault = Fault.of(error.data)
    if fault is not None:
        return _Failed(fault.kind, error.message, fault.retry_after)
    if error.code == mcp_types.CONNECTION_CLOSED:
        session.ended = session.ended or not session.over_http
        broken = session.fault
        return _Failed(broken.kind, str(broken)) if broken is not None else _Failed("connection", error.message)
    if error.code == mcp_types.PARSE_ERROR:
        return _Failed("bad_reply", error.message)
    return _Failed("server_error", f"{error.message} (code {error.code})")


async def _answers(session: Session) -> bool:
    """Whether a process, of which a call had to be stopped, still answers; others are believed to."""
    if not session.doubted or session.over_http:
        return True
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await session.client.list_tools()
    except (TimeoutError, MCPError, ValidationError, RuntimeError, anyio.ClosedResourceError):
        return False
    session.doubted = False
    return True


async def _listed(session: Session) -> list[mcp_types.Tool]:
    """All tools that the server lists.

    Raises:
        ToolError: It doesn't, or not within a hundred pages.
    """
    tools: list[mcp_types.Tool] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        try:
            page = await session.client.list_tools(cursor=cursor)
        except MCPError as error:
            raise _failure(session, error) from error
        except ValidationError as error:
            raise ToolError("bad_reply", "the server's list of tools is against the protocol") from error
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise ToolError("too_large", f"the server's list of tools has more than {_PAGES} pages")
