"""GSM8K as a world: programs run, the answer's number decides. The engine is scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from alpha_umi.cli import app
from alpha_umi.data.gsm8k import Question
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.errors import UserError
from alpha_umi.evaluation.gsm8k import PROGRAM_LIMITS, evaluate_gsm8k
from alpha_umi.tools.program import ProgramSource
from alpha_umi.tools.sandbox import Sandbox, SandboxError, open_sandbox
from alpha_umi.transcript import Renderer, Voice
from tests.tokenizers import nano

RUN = "48 were sold, then half as many.\nNext: Caller"
DONE = "That is all.\nNext: Summarizer"
PROGRAM = '{"name": "python", "arguments": {"code": "%s"}}'
SAID: list[dict[Voice, list[str]]] = [
    {"planner": [RUN, DONE], "caller": [PROGRAM % "48 + 48 / 2"], "summarizer": ["The answer is $72."]},
    {"planner": [RUN, DONE], "caller": [PROGRAM % "48 * 2"], "summarizer": ["The answer is 96."]},
    {"planner": ["I can't tell.\nNext: Give up"]},
    {"planner": [DONE], "summarizer": ["It must be 72."]},
    {"planner": [RUN, RUN, DONE], "caller": [PROGRAM % "1 / 0", PROGRAM % "72"], "summarizer": ["72 clips"]},
    {"planner": [DONE], "summarizer": ["Who knows."]},
]
QUESTIONS = [Question(f"q-{n}", "How many clips?", "72", min(n, 2)) for n in range(len(SAID))]
RECORD = {"question": "How many clips?", "answer": "48+24 = <<48+24=72>>72 clips\n#### 72"}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return asyncio.run(open_sandbox(PROGRAM_LIMITS))
    except SandboxError as error:
        pytest.skip(str(error))


def engine() -> ScriptedEngine:
    said = [{voice: list(texts) for voice, texts in one.items()} for one in SAID]
    return ScriptedEngine(lambda session, voice, text: said[session][voice].pop(0), Renderer(nano()))


def test_the_number_decides_and_what_happened_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = evaluate_gsm8k(
        engine(), QUESTIONS, ProgramSource(sandbox), tmp_path, lambda *progress: told.append(progress), concurrency=3
    )
    scores = found["gsm8k"]
    assert (scores["pass_rate"], scores["episodes"], scores["executed"]) == (0.5, 6, 0.5)
    assert scores["ci95"][0] < 0.5 < scores["ci95"][1]
    assert scores["stop_reasons"] == {"answered": 5, "gave_up": 1}
    assert set(scores["by_kind"]) == {"0 calculations", "1 calculation", "2 calculations"}
    assert {"mean_steps", "mean_calls", "mean_generated_tokens", "mean_prefill_tokens", "ci95_means"} <= scores.keys()
    assert told[-1] == ("live gsm8k", 6, 6)

    episodes = [json.loads(line) for line in (tmp_path / "live-gsm8k-episodes.jsonl").read_text().splitlines()]
    assert [one["extra"]["alpha_umi"]["verdict"]["reason"] for one in episodes] == [
        "72 is right, and a program printed it",
        "96 was answered; right is 72",
        "no number was answered; right is 72",
        "72 is right, and no program printed it",
        "72 is right, and a program printed it",
        "no number was answered; right is 72",
    ]
    assert episodes[0]["messages"][2]["content"] == "72.0"
    assert "ZeroDivisionError" in episodes[4]["messages"][2]["content"]
    failures = (tmp_path / "live-gsm8k-failures.md").read_text()
    assert "3 of 6 episodes failed" in failures and "verdict: 96 was answered" in failures


def test_figures_of_the_same_questions_are_kept(sandbox: Sandbox, tmp_path: Path) -> None:
    def scores(questions: list[Question], speaker: ScriptedEngine) -> dict[str, Any]:
        return evaluate_gsm8k(speaker, questions, ProgramSource(sandbox), tmp_path, lambda *_: None)

    first = scores(QUESTIONS, engine())
    silent = ScriptedEngine({"planner": ["No.\nNext: Give up"]}, Renderer(nano()))
    assert scores(QUESTIONS, silent) == first and silent.requests == []
    assert scores(QUESTIONS[:3], silent)["gsm8k"]["pass_rate"] == 0


@pytest.fixture
def umi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> Iterator[Any]:
    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[ScriptedEngine]:
        yield engine()

    monkeypatch.setattr("alpha_umi.engines.load.open_engine", opened)
    monkeypatch.setattr("alpha_umi.compute.use_all_cores", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.jsonl").write_text((json.dumps(RECORD) + "\n") * 3)
    yield lambda *more: CliRunner().invoke(app, ["eval", "live", "--model", "m", *more], env={"COLUMNS": "200"})


def test_the_command_takes_a_file_of_records(umi: Any, tmp_path: Path) -> None:
    result: Result = umi("--world", "gsm8k", "--data", "test.jsonl", "--instructions", "2", "--json", "figures.json")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "figures.json").read_text())["splits"]["gsm8k"]
    assert (scores["pass_rate"], scores["episodes"]) == (0.5, 2)
    assert "gsm8k" in result.output and "answered" in result.output


@pytest.mark.parametrize(
    "given",
    [
        ("--world", "gsm8k"),
        ("--world", "gsm8k", "--data", "test.jsonl", "--faulty"),
        ("--world", "gsm8k", "--data", "test.jsonl", "--split", "I1-Inst"),
        ("--world", "toolworld", "--data", "test.jsonl"),
        ("--world", "narnia"),
    ],
)
def test_what_does_not_fit_a_world_is_refused(umi: Any, given: tuple[str, ...]) -> None:
    result: Result = umi(*given)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(f"--world {given[1]}: give toolworld")
