"""The process: its tools, its end, and what its command line refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from alpha_umi.cli import app as command_line
from alpha_umi.errors import UserError
from alpha_umi.serving.app import OwnTools, create_app
from alpha_umi.serving.server import base_url, bind, serve
from alpha_umi.transcript import Voice
from tests.serving.conftest import ASK, WEATHER, ScriptedOf, serving, weather_script

PROGRAM = """
import sys
import threading
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.serving.app import create_app
from alpha_umi.serving.server import base_url, bind, serve
from alpha_umi.transcript import Renderer
from tests.tokenizers import nano

def script(session, voice, text):
    if voice == "planner":
        return "I know.\\nNext: Summarizer"
    sys.stdin.readline()
    return "The whole answer."

with bind("127.0.0.1", 0) as bound:
    app = create_app(ScriptedEngine(script, Renderer(nano())), "umi")
    serve(app, bound, lambda: print(base_url(bound), flush=True))
"""


@contextmanager
def process() -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=root, env=environment, **pipes) as started:
        try:
            yield started
        finally:
            started.kill()


def test_a_stream_that_is_open_when_the_server_is_stopped_ends_properly():
    with process() as server:
        assert server.stdin is not None and server.stdout is not None
        url = server.stdout.readline().strip()
        body = {"model": "umi", "messages": ASK, "stream": True}
        with httpx2.stream("POST", f"{url}/chat/completions", json=body, timeout=120) as response:
            lines = response.iter_lines()
            next(line for line in lines if "reasoning_content" in line)
            server.send_signal(signal.SIGTERM)
            server.stdin.write("go on\n")
            server.stdin.flush()
            rest = "\n".join(lines)
        assert "The whole answer." in rest
        assert rest.rstrip().endswith("data: [DONE]")
        assert server.wait(60) == 0


def test_an_interrupt_from_the_keyboard_ends_the_server_as_well():
    with process() as server:
        assert server.stdout is not None
        server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def test_tools_that_the_server_runs(scripted: ScriptedOf):
    def script(session: int, voice: Voice, text: str) -> str:
        seen = text.rpartition("<|user|>")[2]
        if voice == "caller":
            return '{"name": "no_such_tool", "arguments": {}}'
        if voice == "planner":
            return "Known.\nNext: Summarizer" if "<|tool|>" in seen else "I look.\nNext: Caller"
        return "The answer."

    with serving(scripted(script), tools=OwnTools(["toolworld:2"])) as served:
        made = served.post({"model": "umi", "messages": ASK}).json()
        message = made["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("The answer.", "I look.\n\nKnown.")
        called, observed, answered = made["alpha_umi"]["trace"]
        assert called["tool_calls"][0]["function"]["name"] == "no_such_tool"
        assert "unknown_tool" in observed["content"]
        assert answered["content"] == "The answer."
        again = [*ASK, message, {"role": "user", "content": "And now?"}]
        assert served.post({"model": "umi", "messages": again}).json()["choices"][0]["message"]["content"]
        for name, value in (("tools", [WEATHER]), ("tool_choice", "none")):
            refused = served.post({"model": "umi", "messages": ASK, name: value})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)


def test_tools_that_can_not_be_opened_are_named(scripted: ScriptedOf):
    app = create_app(scripted(weather_script), "umi", tools=OwnTools(["no-such-file.json"]))
    with bind("127.0.0.1", 0) as bound, pytest.raises(UserError, match=r"no-such-file\.json"):
        serve(app, bound, lambda: pytest.fail("it is not ready"))


def test_a_port_that_is_taken_is_named():
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert base_url(bound) == f"http://127.0.0.1:{port}/v1"
        with pytest.raises(UserError, match=f"127.0.0.1:{port}.*--port"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "x", "--host", "0.0.0.0"], "--api-key-env"),
        (["--model", "x", "--api-key-env", "UMI_NO_SUCH_KEY"], "UMI_NO_SUCH_KEY"),
        (["--model", "x", "--approve", "sometimes"], "sometimes"),
        ([], "--model"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments: list[str], words: str):
    result = CliRunner().invoke(command_line, ["serve", *arguments])
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)


def test_an_answer_that_nobody_waits_for_is_dropped(scripted: ScriptedOf):
    entered, gate = threading.Event(), threading.Event()

    def script(session: int, voice: Voice, text: str) -> str:
        entered.set()
        gate.wait(60)
        return "I know.\nNext: Summarizer"

    engine = scripted(script)
    with serving(engine) as served:
        body = {"model": "umi", "messages": ASK}
        with socket.create_connection(("127.0.0.1", int(served.root.rpartition(":")[2]))) as connection:
            content = json.dumps(body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
            connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + content)
            assert entered.wait(60)
        while served.metric('requests_total{status="499"}') < 1:
            pass
        gate.set()
        while served.metric("running"):
            pass
        assert [request.voice for request in engine.requests] == ["planner"]
        assert served.metric('answers_total{reason="cancelled"}') == 1
