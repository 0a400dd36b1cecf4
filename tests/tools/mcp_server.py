"""An MCP server made with the SDK: ``python mcp_server.py`` speaks over standard streams, `listening` over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

READS = ToolAnnotations(read_only_hint=True)
SERVER = str(Path(__file__))


def make_server(stopping: asyncio.Event | None = None) -> MCPServer:
    """A server whose ``hang`` ends when ``stopping`` is set, or never."""
    server = MCPServer("things", log_level="CRITICAL")
    kept: list[str] = []

    @server.tool(annotations=READS)
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    def keep(text: str) -> list[str]:
        """Keeps a text."""
        kept.append(text)
        return kept

    @server.tool(name="erase/all.now", annotations=ToolAnnotations(read_only_hint=True, destructive_hint=True))
    def erase() -> str:
        kept.clear()
        return "erased"

    @server.tool(annotations=READS, structured_output=False)
    def picture() -> list[Any]:
        return ["a dot", Image(data=b"\x89PNG....", format="png")]

    @server.tool(annotations=READS)
    def fail() -> str:
        raise ToolError("it is Tuesday")

    @server.tool(annotations=READS)
    async def hang() -> str:
        await (stopping or asyncio.Event()).wait()
        return "late"

    @server.tool(annotations=READS)
    def environment() -> dict[str, str]:
        return dict(os.environ)

    @server.tool(annotations=READS)
    async def grow(context: Context) -> str:
        """Offers another tool."""
        server.add_tool(lambda: "new", name="grown", annotations=READS)
        await context.notify_tools_changed()
        return "grown"

    return server


@contextlib.contextmanager
def listening(server: MCPServer | None = None, **options: Any) -> Iterator[str]:
    """The server over HTTP, on a port of its own, in a thread; gives its URL."""
    import uvicorn

    stopping = asyncio.Event()
    app = (server or make_server(stopping)).streamable_http_app(**options)
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    http = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=http.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            http.should_exit = True
            thread.join()


if __name__ == "__main__":
    make_server().run()
