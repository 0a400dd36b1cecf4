"""`--compare-unconstrained` evaluates twice: held to what is legal, and not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from alpha_umi.cli import app
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.errors import UserError
from alpha_umi.transcript import Renderer
from tests.tokenizers import nano

Umi = Callable[..., Result]


@pytest.fixture
def umi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Umi:
    """Runs `umi eval`; a model that is held gives up in words, one that isn't says nothing like a decision."""

    @contextmanager
    def opened(*_: Any, constrain: bool, **__: Any) -> Iterator[ScriptedEngine]:
        said = ["I can't.\nNext: Give up" if constrain else "Hm."] * 500
        yield ScriptedEngine({"planner": said, "caller": ["?"] * 500}, Renderer(nano()), 1 << 16)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alpha_umi.engines.load.open_engine", opened)
    monkeypatch.setattr("alpha_umi.engines.load.chosen_source", lambda *_, **__: tmp_path)
    monkeypatch.setattr("alpha_umi.compute.use_all_cores", lambda: None)
    return lambda *arguments: CliRunner().invoke(app, ["eval", *arguments], env={"COLUMNS": "300"})


def figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(Path("figures.json").read_text())


STATIC = ("static", "--model", "m", "--data", "toolworld", "--instructions", "2", "--json", "figures.json")
LIVE = (
    "live", "--model", "m", "--world", "toolworld", "--split", "I1-Inst", "--instructions", "2",
    "--json", "figures.json",
)  # fmt: skip


def test_static_figures_are_those_of_both(umi: Umi) -> None:
    result = umi(*STATIC, "--compare-unconstrained")
    both = figures(result)
    assert list(both) == ["constrained", "unconstrained"]
    assert both["constrained"]["splits"]["I1-Inst"]["paper"]["plan_acc"] < 0.5
    for mode in ("paper", "strict"):
        assert f"m ({mode}, constrained)" in result.stdout and f"m ({mode}, unconstrained)" in result.stdout
    assert figures(umi(*STATIC)) == both["constrained"]
    assert figures(umi(*STATIC, "--no-constrain")) == both["unconstrained"]


def test_live_figures_and_traces_are_those_of_both(umi: Umi) -> None:
    result = umi(*LIVE, "--compare-unconstrained", "--traces", "episodes")
    both = figures(result)
    assert both["constrained"]["splits"]["I1-Inst"]["stop_reasons"] == {"gave_up": 2}
    assert "gave_up" not in both["unconstrained"]["splits"]["I1-Inst"]["stop_reasons"]
    assert "m (constrained)" in result.stdout and "m (unconstrained)" in result.stdout
    for way in ("constrained", "unconstrained"):
        assert list(Path("episodes", way).glob("live-I1-Inst-episodes.jsonl"))
    assert figures(umi(*LIVE)) == both["constrained"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*STATIC, "--no-constrain"), "leave --no-constrain out"),
        ((*LIVE, "--no-constrain"), "leave --no-constrain out"),
        (("static", "--predictions", "p.json"), "has been made one way"),
    ],
)
def test_what_does_not_go_together_is_refused(umi: Umi, arguments: tuple[str, ...], says: str) -> None:
    result = umi(*arguments, "--compare-unconstrained")
    assert isinstance(result.exception, UserError)
    assert says in str(result.exception)
