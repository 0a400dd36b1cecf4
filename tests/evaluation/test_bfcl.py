"""BFCL by its own harness: what is chosen, what is collected, and a run where the harness's environment is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from alpha_umi.cli import main
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.errors import DataError, UserError
from alpha_umi.evaluation.bfcl.environment import Environment, prepare, prepared, registered, spread
from alpha_umi.evaluation.bfcl.run import Endpoint, chosen_categories, evaluate_bfcl
from alpha_umi.evaluation.bfcl.scores import NON_LIVE, SINGLE_TURN, Results
from alpha_umi.evaluation.bfcl.served import serving as serve_run
from alpha_umi.transcript import Renderer, Voice
from tests.serving.conftest import serving
from tests.tokenizers import nano

TOO_LONG = "the conversation has 9120 tokens, and the model's context is 8192; send fewer or shorter ones"
ENVIRONMENT = Path("runs/bfcl-env")

# as the harness (bfcl-eval 2026.3.23) wrote them, cut
SIMPLE = [
    {"id": "simple_python_0", "result": [{"calculate_triangle_area": '{"base": 10, "height": 10}'}], "latency": 31.3},
    {"id": "simple_python_1", "result": [{"math_factorial": '{"number": 5}'}], "latency": 50.6},
    {"id": "simple_python_2", "result": "Which number", "latency": 46.0},
]
SIMPLE_SCORE = [
    {"accuracy": 0.3333333333333333, "correct_count": 1, "total_count": 3},
    {"id": "simple_python_0", "valid": False, "error_type": "value_error:others"},
    {"id": "simple_python_2", "valid": False, "error_type": "ast_decoder:decoder_failed"},
]
IRRELEVANCE = [
    {"id": "irrelevance_0", "result": [{"determine_body_mass_index": '{"weight": 6, "height": 5}'}], "latency": 51.4},
    {
        "id": "irrelevance_1",
        "result": f"Error during inference: Error code: 400 - {TOO_LONG}",
        "traceback": "Traceback (most recent call last):\n",
    },
]
IRRELEVANCE_SCORE = [
    {"accuracy": 0.5, "correct_count": 1, "total_count": 2},
    {"id": "irrelevance_0", "valid": False},
]


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def failed(number: int, error: str) -> dict[str, Any]:
    return {"id": f"multiple_{number}", "result": f"Error during inference: {error}", "traceback": "Traceback"}


@pytest.fixture
def left(tmp_path: Path) -> Results:
    """What the harness left of two categories."""
    results = Results(tmp_path, "my_run")
    lines(results.results_file("simple_python"), SIMPLE)
    lines(results.score_file("simple_python"), SIMPLE_SCORE)
    lines(results.results_file("irrelevance"), IRRELEVANCE)
    lines(results.score_file("irrelevance"), IRRELEVANCE_SCORE)
    return results


# ---- choosing -------------------------------------------------------------------------------------------------------


def test_groups_and_categories_are_taken_apart_and_each_runs_once():
    assert chosen_categories(["non_live", "multiple", "live_simple"]) == (*NON_LIVE, "live_simple")
    assert len(chosen_categories(["single_turn"])) == len(SINGLE_TURN) == 13


@pytest.mark.parametrize("name", ["memory_vector", "web_search", "everything"])
def test_a_category_that_is_unknown_or_needs_the_network_is_refused_with_those_there_are(name: str):
    with pytest.raises(UserError, match=f"--categories {name}: there is no such category .* multi_turn_base"):
        chosen_categories([name])


def test_a_limit_takes_entries_evenly_from_the_whole_category():
    ids = [f"multiple_{number}" for number in range(10)]
    assert spread(ids, 3) == ["multiple_0", "multiple_3", "multiple_6"]
    assert spread(ids, None) == spread(ids, 12) == ids


def test_a_models_name_has_nothing_that_the_harness_takes_for_something_else():
    assert registered("org/my_run,v2") == "org-my-run-v2"


def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["umi", "eval", "bfcl", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either --model RUN"),
        (("--model", "nowhere"), "--model nowhere: no run directory is there"),
        (("--base-url", "http://127.0.0.1:9/v1"), "--base-url: give --name"),
        (("--base-url", "http://127.0.0.1:9/v1", "--name", "m", "--api-key-env", "NO_SUCH"), "--api-key-env NO_SUCH"),
    ],
)
def test_what_is_missing_is_told_in_a_sentence(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert words in told(capsys, monkeypatch, *arguments)


# ---- the environment and the server ---------------------------------------------------------------------------------


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="the folder has something else in it"):
        prepare(tmp_path, tmp_path / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_without_a_package_index_the_installation_fails_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match=r"can't be installed in .*No matching distribution found.*package index"):
        prepare(tmp_path / "env", tmp_path / "log")
    assert prepared(tmp_path / "env") is None


@pytest.mark.slow
def test_a_server_that_cant_start_says_why(tmp_path: Path):
    with (
        pytest.raises(UserError, match="nowhere"),
        serve_run("m", ["--model", str(tmp_path / "nowhere")], tmp_path / "log"),
    ):
        pass


# ---- the scores -----------------------------------------------------------------------------------------------------


def test_the_harnesss_figures_are_taken_as_they_are(left: Results):
    score = left.score("simple_python", 400)
    assert (score.accuracy, score.correct, score.n, score.entries) == (1 / 3, 1, 3, 400)
    assert (score.errors, score.correct_by_error) == ({}, 0)


def test_an_error_that_the_harness_takes_for_a_right_answer_is_counted(left: Results):
    score = left.score("irrelevance", 240)
    assert (score.correct, score.n) == (1, 2)
    assert (score.errors, score.correct_by_error) == ({"context_length_exceeded": 1}, 1)


def test_a_category_without_a_score_is_an_error_that_names_the_file(left: Results):
    with pytest.raises(DataError, match=r"BFCL_v4_multiple_score\.json: the harness left no score there"):
        left.score("multiple", 200)


def test_entries_that_no_answer_came_for_are_asked_again_and_refused_ones_are_not(left: Results):
    refused = failed(3, "Error code: 400 - tools.0.function.name: too long")
    errors = ["Connection error.", "Request timed out.", "Error code: 500 - the server made a mistake"]
    lines(left.results_file("multiple"), [*(failed(number, error) for number, error in enumerate(errors)), refused])
    assert left.drop_unanswered("multiple") == 3
    assert left.done("multiple") == {"multiple_3"}
    assert left.drop_unanswered("multiple") == left.drop_unanswered("live_simple") == 0


# ---- the harness itself ---------------------------------------------------------------------------------------------


def cautious(session: int, voice: Voice, text: str) -> str:
    """Calls nothing."""
    return {"planner": "I have it.\nNext: Summarizer", "summarizer": "There is nothing to do."}[voice]


@pytest.fixture(scope="module")
def environment() -> Environment:
    found = prepared(ENVIRONMENT)
    if found is None:
        pytest.skip("the harness's environment is not there; `umi eval bfcl` makes it")
    return found


@pytest.mark.slow
def test_the_harness_runs_to_the_end_scores_what_came_and_asks_nothing_twice(environment: Environment, tmp_path: Path):
    categories = ("simple_python", "irrelevance", "multi_turn_base")
    with serving(ScriptedEngine(cautious, Renderer(nano()), context=65536)) as served:
        endpoint = Endpoint("umi", served.url)
        report = evaluate_bfcl(endpoint, categories, tmp_path, environment.root, limit=1)
        asked = served.metric("requests_total")
        assert evaluate_bfcl(endpoint, categories, tmp_path, environment.root, limit=1) == report
        assert served.metric("requests_total") == asked
    found = report["categories"]
    assert {name: (one["correct"], one["n"]) for name, one in found.items()} == {
        "simple_python": (0, 1), "irrelevance": (1, 1), "multi_turn_base": (0, 1),
    }  # fmt: skip
    assert all(one["errors"] == {} for one in found.values())
    assert report["server_errors"] == 0
