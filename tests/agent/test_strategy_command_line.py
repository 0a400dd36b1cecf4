"""`--strategy` of `umi run` and `umi eval live`. The engine is scripted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from alpha_umi.agent import read_trace
from alpha_umi.cli import app
from alpha_umi.errors import UserError
from alpha_umi.transcript import Voice
from tests.agent.conftest import EngineOf, ScoredEngine

Umi = Callable[..., Result]
CALL = "I need a thing.\nNext: Caller"
DONE = "I have it.\nNext: Summarizer"
NEVER = "Nothing here does that.\nNext: Give up"
MODULE = '''
def price(hotel: str) -> int:
    """Price of a hotel."""
    return len(hotel)
'''
PRICE = '{"name": "price", "arguments": {"hotel": "%s"}}'


@pytest.fixture
def umi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_of: EngineOf) -> Iterator[Umi]:
    """Runs a command; the planner gives up on its first path, and answers on the second."""
    (tmp_path / "my_tools.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    said: dict[Voice, list[str]] = {
        "planner": [CALL, CALL, NEVER, CALL, DONE], "caller": [PRICE % hotel for hotel in ("a", "bb", "ccc")],
        "summarizer": ["The answer."],
    }  # fmt: skip

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[ScoredEngine]:
        yield engine_of(said, context=1 << 16)

    monkeypatch.setattr("alpha_umi.engines.load.open_engine", opened)
    monkeypatch.setattr("alpha_umi.compute.use_all_cores", lambda: None)
    yield lambda *arguments: CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})


def test_a_run_searches_and_leaves_its_tree(umi: Umi, tmp_path: Path) -> None:
    result = umi(
        "run", "How much?", "--model", "m", "--tools", "my_tools.py", "--strategy", "dfsdt:width=3", "--json",
        "--trace", "out/tree.jsonl",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.output)
    assert (outcome["answer"], outcome["strategy"], outcome["branches"]) == ("The answer.", "dfsdt", 1)
    assert outcome["steps"] == 5 and len(outcome["calls"]) == 3
    assert len(list(read_trace(tmp_path / "out" / "tree.jsonl"))) == 2


def test_the_display_shows_going_back(umi: Umi) -> None:
    result = umi("run", "How much?", "--model", "m", "--tools", "my_tools.py", "--strategy", "dfsdt")
    assert "back to step 1, to try something else" in result.output


def test_without_a_strategy_a_run_is_react(umi: Umi) -> None:
    outcome = json.loads(umi("run", "How much?", "--model", "m", "--tools", "my_tools.py", "--json").output)
    assert (outcome["stop_reason"], "strategy" in outcome) == ("gave_up", False)


def test_strategies_are_compared_with_intervals(umi: Umi, tmp_path: Path) -> None:
    result = umi(
        "eval", "live", "--model", "m", "--world", "toolworld", "--split", "I1-Inst", "--instructions", "2",
        "--faulty", "--strategy", "react", "--strategy", "dfsdt:decisions=9", "--json", "figures.json",
        "--traces", "episodes",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "figures.json").read_text())["strategies"]
    assert list(found) == ["react", "dfsdt:decisions=9"]
    for one in found.values():
        scores = one["splits"]["I1-Inst"]
        low, high = scores["ci95_means"]["mean_generated_tokens"]
        assert low <= scores["mean_generated_tokens"] <= high
        assert set(scores["by_kind"]) <= {"retry", "alternative", "blocked"}
    assert "m (dfsdt:decisions=9)" in result.output
    trace = tmp_path / "episodes" / "dfsdt-decisions=9" / "live-I1-Inst-steps.jsonl"
    assert {path.extra["alpha_umi"]["branch"]["session"] for path in read_trace(trace)} == {0, 1}


@pytest.mark.parametrize("verb", [("run", "x", "--tools", "my_tools.py"), ("eval", "live", "--world", "toolworld")])
def test_an_unknown_strategy_is_told_before_anything_is_loaded(umi: Umi, verb: tuple[str, ...]) -> None:
    result = umi(*verb, "--model", "m", "--strategy", "mcts")
    assert isinstance(result.exception, UserError)
    assert "there are react, dfsdt, best-of-n" in str(result.exception)
