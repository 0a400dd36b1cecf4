"""One task through every source that makes calls: real servers on loopback, a real module, the same outcome."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from alpha_umi.agent import Episode, StopReason, run_one
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.tools import Approval, open_tools
from alpha_umi.trajectory import ToolMessage, UserMessage
from alpha_umi.transcript import Renderer
from tests.tokenizers import nano
from tests.tools.mcp_server import SERVER, listening

Opening = Callable[[Path], AbstractContextManager[str]]
MODULE = '''
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b
'''


@contextmanager
def module(folder: Path) -> Iterator[str]:
    (folder / "sums.py").write_text(MODULE, encoding="utf-8")
    yield str(folder / "sums.py")


@contextmanager
def application(folder: Path) -> Iterator[str]:
    """A FastAPI application with its own OpenAPI document."""
    fastapi, uvicorn = pytest.importorskip("fastapi"), pytest.importorskip("uvicorn")
    free = socket.create_server(("127.0.0.1", 0))
    app = fastapi.FastAPI(servers=[{"url": (url := f"http://127.0.0.1:{free.getsockname()[1]}")}])

    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    app.get("/sum", operation_id="add")(add)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [free]})
    thread.start()
    try:
        yield f"{url}/openapi.json"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def mcp_stdio(folder: Path) -> Iterator[str]:
    yield f"mcp:{sys.executable} {SERVER}"


@contextmanager
def mcp_http(folder: Path) -> Iterator[str]:
    with listening() as url:
        yield f"mcp+{url}"


def added(a: int, b: int) -> str:
    return json.dumps({"name": "add", "arguments": {"a": a, "b": b}})


@pytest.mark.parametrize("source", [module, application, mcp_stdio, mcp_http], ids=lambda one: one.__name__)
def test_the_same_task_is_solved_through_each_source(source: Opening, tmp_path: Path) -> None:
    engine = ScriptedEngine(
        {
            "planner": [*["I need a sum.\nNext: Caller"] * 2, "I have it.\nNext: Summarizer"],
            "caller": [added(1, 2) + "\n" + added(3, 4), added(3, 7)],
            "summarizer": ["It is 10."],
        },
        Renderer(nano()),
        1 << 14,
    )
    with source(tmp_path) as spec, open_tools([spec], "") as opened:
        episode = Episode(0, opened.source, [UserMessage("What is 1 + 2 + 3 + 4?")])
        outcome = run_one(engine, episode, runner=opened.runner, approval=Approval())
    assert (outcome.stop_reason, outcome.answer) == (StopReason.ANSWERED, "It is 10.")
    assert [(call.call.name, call.error) for call in outcome.calls] == [("add", None)] * 3
    said = [json.loads(m.content) for m in outcome.trajectory.messages if isinstance(m, ToolMessage)]
    assert [one["result"] if isinstance(one, dict) else one for one in said] == [3, 7, 10]
