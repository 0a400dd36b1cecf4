"""`umi run` and `umi chat` with tools of one's own: what is shown, asked and printed. The engine is scripted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import Result
from typer.testing import CliRunner

from alpha_umi.cli import app
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.errors import UserError
from alpha_umi.transcript import Renderer, Voice
from tests.tokenizers import nano

Umi = Callable[..., Result]
CALL = "I need a tool.\nNext: Caller"
DONE = "I have it.\nNext: Summarizer"
MODULE = '''
from alpha_umi.tools import writes

saved = []


def price(hotel: str) -> int:
    """Price of a hotel."""
    return 253


@writes
def book(hotel: str) -> list:
    """Books a hotel."""
    saved.append(hotel)
    return saved
'''
SCHEMAS = [{"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]


def wanted(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments})


@pytest.fixture
def umi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Umi]:
    """Runs a command in a folder with tools; every conversation's caller says ``calls``, then there is an answer."""
    (tmp_path / "my_tools.py").write_text(MODULE)
    (tmp_path / "schemas.json").write_text(json.dumps(SCHEMAS))
    monkeypatch.chdir(tmp_path)
    before = {process.pid for process in psutil.Process().children(recursive=True)}

    def run(*arguments: str, calls: Sequence[str] = (), given: str = "") -> Result:
        script: dict[Voice, list[str]] = {
            "planner": [*[CALL] * len(calls), DONE], "caller": list(calls), "summarizer": ["The answer."],
        }  # fmt: skip

        @contextmanager
        def opened(*_: Any, **__: Any) -> Iterator[ScriptedEngine]:
            yield ScriptedEngine(script, Renderer(nano()), 1 << 16)

        monkeypatch.setattr("alpha_umi.engines.load.open_engine", opened)
        monkeypatch.setattr("alpha_umi.engines.load.chosen_source", lambda *_, **__: tmp_path)
        monkeypatch.setattr("alpha_umi.compute.use_all_cores", lambda: None)
        return CliRunner().invoke(app, arguments, input=given, env={"COLUMNS": "200"})

    yield run
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


def outcome(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_query_is_solved_with_the_functions_of_a_file(umi: Umi) -> None:
    result = umi("run", "Price?", "--tools", "my_tools.py", calls=[wanted("price", hotel="Bobru")])
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert 'caller  price({"hotel": "Bobru"})' in lines
    assert "tool  253" in lines
    assert lines[-2:] == ["summarizer  The answer.", "stop  answered"]


def test_calls_for_the_client_are_printed_as_json(umi: Umi) -> None:
    value = outcome(umi("run", "Weather?", "--tools", "schemas.json", "--json", calls=[wanted("weather", city="Rome")]))
    assert value["stop_reason"] == "client_calls"
    assert value["calls"] == [
        {"name": "weather", "arguments": {"city": "Rome"}, "error": None, "client": True, "id": "call_0"}
    ]


@pytest.mark.parametrize(("policy", "error"), [("writes", "not_approved"), ("never", None), ("always", "not_approved")])
def test_without_a_terminal_calls_that_must_be_confirmed_are_refused(umi: Umi, policy: str, error: str | None) -> None:
    value = outcome(
        umi("run", "Book!", "--tools", "my_tools", "--approve", policy, "--json", calls=[wanted("book", hotel="Bobru")])
    )
    assert [call["error"] for call in value["calls"]] == [error]
    assert value["stop_reason"] == "answered"


@pytest.mark.parametrize(("answer", "error"), [("y\n", None), ("n\n", "not_approved"), ("", "not_approved")])
def test_at_a_terminal_a_person_is_asked(
    umi: Umi, monkeypatch: pytest.MonkeyPatch, answer: str, error: str | None
) -> None:
    monkeypatch.setattr("typer.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    result = umi(
        "run", "Book!", "--tools", "my_tools.py", "--json", calls=[wanted("book", hotel="Bob\x1bru")], given=answer
    )
    value = outcome(result)
    assert [call["error"] for call in value["calls"]] == [error]
    assert r'book({"hotel": "Bob\u001bru"})  make this call? [y/N]' in result.stderr


def test_only_the_most_relevant_tools_are_shown(umi: Umi) -> None:
    value = outcome(
        umi(
            "run",
            "What is the price?",
            "--tools",
            "schemas.json",
            "--tools",
            "my_tools.py",
            "--retrieve",
            "1",
            "--json",
        )
    )
    assert [tool["function"]["name"] for tool in value["trajectory"]["tools"]] == ["price"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tools", "my_tools.py", "--approve", "sometimes"), "--approve sometimes"),
        (("--tools", "my_tools.py", "--tools", "nowhere.py"), "--tools 'nowhere.py'"),
    ],
)
def test_what_is_given_wrong_is_one_sentence(umi: Umi, arguments: tuple[str, ...], says: str) -> None:
    result = umi("run", "Price?", *arguments)
    assert isinstance(result.exception, UserError)
    assert says in str(result.exception)


def test_a_retriever_without_a_number_of_tools_is_refused(umi: Umi) -> None:
    result = umi("run", "Price?", "--tools", "my_tools.py", "--retriever", "some/model")
    assert isinstance(result.exception, UserError)
    assert "add --retrieve K" in str(result.exception)


def test_what_cannot_be_offered_is_said_once_beside_the_run(umi: Umi) -> None:
    get = {"parameters": [{"name": "p", "in": "query", "schema": {"$ref": "http://elsewhere/x"}}]}
    document = {"openapi": "3.1.0", "servers": [{"url": "http://127.0.0.1:9"}], "paths": {"/ok": {"get": {}}}}
    document["paths"] |= {f"/{name}": {"get": get} for name in "abcde"}
    Path("api.json").write_text(json.dumps(document))
    result = umi("run", "Price?", "--tools", "api.json", "--json")
    assert outcome(result)["stop_reason"] == "answered"
    lines = result.stderr.splitlines()
    assert lines[0] == "5 of what the sources have can't be a tool and is left out"
    assert [line.partition(":")[0] for line in lines[1:4]] == ["GET /a", "GET /b", "GET /c"]
    assert lines[4] == "... and 2 more, which `umi tools SOURCE` lists"
    talk = umi("chat", "--tools", "api.json", given="Price?\nThanks.\n")
    assert talk.stderr.count("is left out") == 1


def test_a_conversation_keeps_its_tools_and_their_state(umi: Umi) -> None:
    book = [wanted("book", hotel="Bobru")] * 2
    result = umi("chat", "--tools", "my_tools.py", "--approve", "never", calls=book, given="Book!\nThank you.\n")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert [line for line in lines if line.startswith("tool ")] == ['tool  ["Bobru"]', 'tool  ["Bobru", "Bobru"]']
    assert result.stdout.count("The answer.") == 2


def test_a_conversation_that_ends_with_calls_for_the_client_says_so_and_another_begins(umi: Umi) -> None:
    result = umi("chat", "--tools", "schemas.json", calls=[wanted("weather", city="Rome")], given="Rome?\nThanks.\n")
    assert result.exit_code == 0
    assert "the conversation ends here (client_calls)" in result.stdout
    assert result.stdout.count("The answer.") == 1


def test_a_query_is_solved_with_an_mcp_server(umi: Umi) -> None:
    spec = f"mcp:{sys.executable} {Path(__file__).parents[1] / 'tools' / 'mcp_raw.py'}"
    value = outcome(umi("run", "Say it.", "--tools", spec, "--json", calls=[wanted("echo", text="here")]))
    assert value["stop_reason"] == "answered"
    assert value["trajectory"]["messages"][-2]["content"] == "here"


@pytest.mark.parametrize("more", [(), ("--retrieve", "1")])
def test_a_reply_that_is_cut_can_be_read_on(umi: Umi, more: tuple[str, ...]) -> None:
    (Path("long.py")).write_text("def say() -> str:\n    return 'word ' * 100\n")
    calls = [wanted("say"), wanted("read_more", id="3c9a1b2c3d", start=0)]
    value = outcome(umi("run", "Say it.", "--tools", "long.py", "--read-more", "16", "--json", *more, calls=calls))
    first, second = (m["content"] for m in value["trajectory"]["messages"] if m["role"] == "tool")
    assert first.startswith("word wor\n[... cut here; ")
    assert [call["error"] for call in value["calls"]] == [None, "unknown_reply"]
    assert "kept are " in second
    assert [tool["function"]["name"] for tool in value["trajectory"]["tools"]] == ["say", "read_more"]
