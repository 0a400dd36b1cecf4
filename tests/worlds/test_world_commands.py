"""`umi world serve`, `umi eval live` in its worlds and `umi eval judge` on what that left, as they are typed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from alpha_umi.cli import app
from alpha_umi.errors import UserError
from tests.integration.conftest import command, environment
from tests.integration.provider import Body, Provider, chat, providing
from tests.worlds.scripted import queries_file, simulated

Umi = Callable[..., Result]


def working(body: Body) -> Body:
    """As an agent: calls its first tool, then answers with what it said. As a judge: all is solved."""
    if "tool_choice" in body and isinstance(body["tool_choice"], dict):
        return chat(None, ("check_answer_status", '{"reason": "it is", "answer_status": "Solved"}'))
    if not body.get("tools"):
        return simulated(body)
    last = body["messages"][-1]
    if last["role"] == "tool":
        return chat(f"It is {last['content']}")
    function = body["tools"][0]["function"]
    arguments = dict.fromkeys(function["parameters"]["properties"], last["content"])
    return chat(None, (function["name"], json.dumps(arguments)))


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing(working) as served:
        yield served


@pytest.fixture
def umi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: Provider) -> Umi:
    monkeypatch.chdir(tmp_path)
    endpoint = {"base_url": provider.base_url, "model": "m", "max_retries": 0}
    for name, content in (("agent", {"agent": endpoint}), ("judge", {"judge": endpoint})):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    return lambda *arguments: CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


@contextmanager
def served(*options: str) -> Iterator[str]:
    process = subprocess.Popen(
        command(["world", "serve", "--port", "0", *options]), env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+/virtual", process.stdout.readline())
        assert found, "it has not said where it is"
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "answered" in json.loads(process.stdout.read())


def test_a_world_is_served_worked_in_and_judged(umi: Umi, provider: Provider, tmp_path: Path) -> None:
    queries = str(queries_file(tmp_path, 4))
    live = ["eval", "live", "--world", "stabletoolbench", "--queries", queries, "--engine", "agent.yaml"]
    with served("--documents", queries, "--simulator", "agent.yaml") as url:
        for part in ("1/2", "2/2"):
            result = umi(*live, "--server", url, "--traces", "run", "--shard", part, "--json", "live.json")
            assert result.exit_code == 0, result.output
    assert "4 answered" in result.output and "umi eval judge" in result.output
    found = json.loads(Path("live.json").read_text())["splits"]["G1_made"]
    assert (found["episodes"], found["mean_calls"], found["failed_calls"]) == (4, 1.0, {})
    result = umi("eval", "judge", "pass", "--answers", "a=run", "--judge", "judge.yaml", "--json", "pass.json")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("pass.json").read_text())["sets"]["G1_made"]["a"]["pass_rate"]["value"] == 1.0
    assert umi("world", "merge", "all", "run").output == "G1_made: 4 episodes\n"


def test_queries_and_tools_are_a_world_of_their_own(umi: Umi) -> None:
    Path("t.py").write_text('def look_up(key: str) -> str:\n    """Looks it up."""\n    return key.upper()\n')
    Path("mine.jsonl").write_text('"what is it?"\n')
    result = umi(
        "eval", "live", "--queries", "mine.jsonl", "--tools", "t.py", "--engine", "agent.yaml", "--traces", "run"
    )
    assert result.exit_code == 0, result.output
    assert "WHAT IS IT?" in Path("run/live-mine-episodes.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--world", "stabletoolbench", "--queries", "q.jsonl"], "start `umi world serve`"),
        (["--world", "stabletoolbench", "--server", "http://127.0.0.1:1"], "give --queries"),
        (["--queries", "q.jsonl"], "--tools SOURCE"),
        (["--queries", "q.jsonl", "--tools", "t.py", "--server", "http://127.0.0.1:1"], "--server URL belongs"),
        (["--queries", "q.jsonl", "--tools", "t.py", "--shard", "1/2"], "needs --traces"),
        (["--queries", "q.jsonl", "--tools", "t.py", "--shard", "5/2", "--traces", "x"], "give I/N"),
        (["--world", "toolworld", "--shard", "1/2"], "belong to the worlds"),
        (["--queries", "q.jsonl", "--tools", "t.py", "--approve", "perhaps"], "--approve perhaps"),
        (["--world", "stabletoolbench", "--queries", "q.jsonl", "--server", "nowhere"], "--server"),
        (["--world", "nowhere"], "--world nowhere"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(umi: Umi, arguments: list[str], complaint: str) -> None:
    Path("q.jsonl").write_text('{"query": "x"}\n')
    result = umi("eval", "live", "--engine", "agent.yaml", *arguments)
    assert isinstance(result.exception, UserError) and complaint in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "0.0.0.0"], "--api-key-env"),
        (["--cache", "none"], "no such folder"),
        (["--simulator", "agent.yaml"], "give --documents"),
        (["--simulator", "judge.yaml"], "judge"),
        (["--documents", "none.json"], "no such file"),
        (["--replies", "judge.yaml"], "the replies judge.yaml"),
    ],
)
def test_a_server_that_cannot_be_is_one_sentence(umi: Umi, arguments: list[str], complaint: str) -> None:
    result = umi("world", "serve", *arguments)
    assert isinstance(result.exception, UserError) and complaint in str(result.exception)


def test_a_file_that_holds_no_episodes_is_one_sentence(umi: Umi) -> None:
    Path("empty").mkdir()
    result = umi("world", "merge", "all", "empty")
    assert isinstance(result.exception, UserError) and "episodes.sqlite" in str(result.exception)
