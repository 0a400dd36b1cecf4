"""The quickstart from nothing to a report, and the other commands on what it leaves behind."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alpha_umi.evaluation import toolworld_suite
from alpha_umi.evaluation.static import StaticPredictions
from alpha_umi.evaluation.toolworld_suite import Suite, evaluate_static
from alpha_umi.toolworld import SPLITS
from alpha_umi.trajectory import Trajectory
from tests.integration.conftest import Done

Umi = Callable[..., Done]
SYSTEMS = ("umi", "single-multitask")
STATIC = ("plan_acc", "act_em", "hallu", "arg_f1", "rouge_l")
STOPS = {"answered", "gave_up", "step_limit", "time_limit", "token_limit", "context_limit"}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("quick") / "start"
    return ["quickstart", "--from-scratch", "--minutes", "0.1", "--instructions", "2", "--out", str(out)]


@pytest.fixture(scope="module")
def out(umi: Umi, arguments: list[str]) -> Path:
    done = umi(*arguments, timeout=280)
    assert done.code == 0, done.err
    assert "One instruction, solved" in done.out
    assert "report.md" in done.out
    for role in ("planner", "caller", "summarizer"):
        assert f"umi local/{role}:" in done.out
    return Path(arguments[-1])


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def is_fraction(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_report_has_every_figure_of_every_split(report: dict[str, Any], system: str):
    parts = report["systems"][system]
    assert set(parts["static"]) == set(parts["live"]) == set(SPLITS)
    for split in SPLITS:
        static, live = parts["static"][split], parts["live"][split]
        assert all(is_fraction(static[name]) for name in STATIC), static
        assert is_fraction(live["pass_rate"])
        assert len(live["ci95"]) == 2 and all(map(is_fraction, live["ci95"]))
        assert live["ci95"][0] <= live["pass_rate"] <= live["ci95"][1]
        assert live["episodes"] == 2


def test_the_report_says_what_it_took(report: dict[str, Any]):
    assert set(report["systems"]) == set(report["tokens"]) == set(SYSTEMS)
    assert all(tokens > 0 for tokens in report["tokens"].values())
    parts = report["seconds_by_part"]
    assert report["seconds"] == pytest.approx(parts["training"] + parts["evaluation"], abs=0.2)
    assert report["comparison"] == "equal compute"
    flops = [report["systems"][system]["training"]["flops"] for system in SYSTEMS]
    assert flops[0] == pytest.approx(flops[1], rel=0.3), "equal but for the rounding of very few steps"
    assert report["command"].startswith("umi quickstart")
    assert report["example"]["stop_reason"] in STOPS


def test_the_report_is_there_for_people_too(out: Path):
    text = (out / "report.md").read_text(encoding="utf-8")
    for split in SPLITS:
        assert split in text
    images = {path.name for path in out.glob("*.png")}
    assert images == {"static.png", "live.png", "loss.png"}
    assert all(f"({name})" in text for name in images)
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in images)


def test_episodes_and_failures_are_kept_with_their_traces(out: Path):
    for system in SYSTEMS:
        for split in SPLITS:
            folder = out / "evaluation" / system
            lines = (folder / f"live-{split}-episodes.jsonl").read_text(encoding="utf-8").splitlines()
            episodes = [Trajectory.from_json(line) for line in lines]
            assert len(episodes) == 2
            assert all(episode.extra["alpha_umi"]["verdict"]["stop_reason"] in STOPS for episode in episodes)
            assert (folder / f"live-{split}-failures.md").exists()


def test_both_systems_are_runs(out: Path):
    for folder, stages in ((out, ["global", "local/planner", "local/caller", "local/summarizer"]),
                           (out / "single-multitask", ["global"])):  # fmt: skip
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        assert info["done"] == stages
        assert (folder / "README.md").exists()
    assert not list(out.rglob("*.bin")) and not list(out.rglob("*.pt")) and not list(out.rglob("*.pkl"))


def test_the_same_command_again_reuses_everything(here: Umi, out: Path, arguments: list[str], report: dict[str, Any]):
    kept = [*out.rglob("*.safetensors"), *out.rglob("metrics.jsonl"), *(out / "evaluation").rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in kept if path.is_file()}
    done = here(*arguments)
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert again["systems"] == report["systems"]
    assert "umi static I1-Inst:" not in done.out
    assert "umi local/planner:" not in done.out


def test_other_minutes_in_the_same_directory_are_refused(here: Umi, out: Path, arguments: list[str]):
    again = ["0.2" if text == "0.1" else text for text in arguments]
    done = here(*again)
    assert done.code == 2
    assert "another recipe (different: global_stage, local_stage)" in done.err


def test_figures_of_other_instructions_are_not_taken_for_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    computed: list[int] = []

    def predictions(engine: object, gold: list[Trajectory], **more: object) -> StaticPredictions:
        computed.append(len(gold))
        return StaticPredictions()

    monkeypatch.setattr(toolworld_suite, "static_predictions", predictions)
    monkeypatch.setattr(toolworld_suite, "static_scores", lambda run, seed: {"seed": seed})
    engine: Any = None
    for suite in (Suite({"I1-Inst": 2}), Suite({"I1-Inst": 2}), Suite({"I1-Inst": 3}), Suite({"I1-Inst": 3}, seed=1)):
        scores = evaluate_static(engine, suite, tmp_path, lambda name, done, total: None)
        assert scores == {"I1-Inst": {"seed": suite.seed}}
    assert computed == [2, 3, 3]


@pytest.mark.parametrize("folder", [".", "single-multitask"])
def test_a_query_is_answered_with_one_json_object(here: Umi, out: Path, folder: str):
    query = "Find hotels in Velora and book the first."
    done = here("run", query, "--model", out / folder, "--tools", "toolworld", "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    outcome = json.loads(done.out)
    assert {"answer", "stop_reason", "calls", "steps", "tokens", "trajectory"} <= set(outcome)
    assert set(outcome["tokens"]) == {"prefill", "generated"}
    assert outcome["stop_reason"] in STOPS
    keys = {"name", "arguments", "error"}
    assert all(keys <= set(call) <= keys | {"executed"} for call in outcome["calls"])
    assert Trajectory.from_json(json.dumps(outcome["trajectory"])).messages[0].content.startswith("Find hotels")
    assert len(outcome["trajectory"]["tools"]) == 5


def test_a_query_is_solved_before_the_readers_eyes(here: Umi, out: Path):
    done = here("run", "Find hotels in Velora.", "--model", out, "--tools", "toolworld:3")
    assert done.code == 0, done.err
    assert "planner" in done.out
    assert "stop" in done.out or "summarizer" in done.out


def test_live_figures_are_written(here: Umi, out: Path, tmp_path: Path):
    done = here(
        "eval", "live", "--model", out, "--world", "toolworld", "--split", "I2-Inst", "--instructions", 1,
        "--json", tmp_path / "live.json", "--traces", tmp_path / "traces",
    )  # fmt: skip
    assert done.code == 0, done.err
    figures = json.loads((tmp_path / "live.json").read_text(encoding="utf-8"))["splits"]
    assert set(figures) == {"I2-Inst"}
    assert figures["I2-Inst"]["episodes"] == 1
    assert (tmp_path / "traces" / "live-I2-Inst-failures.md").exists()


def test_static_figures_are_written(here: Umi, out: Path, tmp_path: Path):
    done = here(
        "eval", "static", "--model", out, "--data", "toolworld", "--instructions", 1, "--json", tmp_path / "s.json"
    )
    assert done.code == 0, done.err
    splits = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["splits"]
    assert set(splits) == set(SPLITS)
    for scores in splits.values():
        assert all(is_fraction(scores["paper"][name]) for name in STATIC)
        assert set(STATIC) <= set(scores["paper"]["n"]) and set(STATIC) <= set(scores["paper"]["ci95"])
    assert "I1-Inst" in done.out


def test_one_can_talk_with_it(here: Umi, out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Find hotels in Velora.\nAnd in Tamiro?\n\n"))
    done = here("chat", "--model", out, "--tools", "toolworld")
    assert done.code == 0, done.err
    assert done.out.count("you") == 3
    assert "planner" in done.out


@pytest.mark.parametrize("given", ["", "\n", "Find hotels in Velora."], ids=["nothing", "an empty line", "one line"])
def test_a_conversation_ends_with_its_input(here: Umi, out: Path, given: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    done = here("chat", "--model", out, "--tools", "toolworld")
    assert done.code == 0, done.err
    assert ("planner" in done.out) == bool(given.strip())
