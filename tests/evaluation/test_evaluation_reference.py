"""The paper code's prediction format, and parity with the figures its script printed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.errors import DataError
from alpha_umi.evaluation.metrics import paper_scores
from alpha_umi.evaluation.reference_predictions import parse_step, read_groups, read_predictions
from alpha_umi.trajectory import Decision

SHARED = Path(os.environ.get("ALPHA_UMI_DATA") or Path(__file__).parents[3] / "shared" / "data")
REFERENCE = SHARED / "alpha-umi" / "reference_scoring"
NAMES = {
    "rouge": "rouge_l",
    "plan_em": "plan_acc",
    "action_em": "act_em",
    "easy_f1": "easy_f1",
    "hard_f1": "hard_f1",
    "f1": "arg_f1",
    "hallu_rate": "hallu",
}

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"no reference scores at {REFERENCE}; set ALPHA_UMI_DATA to the folder of data sets"
)


def record(**changes: Any) -> dict[str, Any]:
    text = "assistant: I need the weather. Next: caller.</s>caller: Action: weather\nAction Input: {}</s>"
    return {"tools": [{"Name": "weather"}], "instruction": "Rain?", "reference": text, "predictions": text} | changes


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@needs_reference
def test_every_figure_equals_the_reference_script() -> None:
    file = REFERENCE / "predictions.json"
    pairs = read_predictions(file)
    scores = paper_scores(pairs, read_groups(file)).to_json()
    printed = json.loads((REFERENCE / "metrics.json").read_text(encoding="utf-8"))
    assert set(printed) == set(NAMES)
    for theirs, ours in NAMES.items():
        assert scores[ours] == pytest.approx(printed[theirs], abs=1e-9), theirs
        low, high = scores["ci95"][ours]
        assert low < scores[ours] < high
    assert len(pairs) == scores["n"]["plan_acc"] == scores["n"]["hallu"] == 728


def test_a_call_is_read_with_its_rationale() -> None:
    step = parse_step('asssitant: Look it up. Next: caller.</s>caller: Action: weather\nAction Input: {"a": 1}</s>')
    assert (step.decision, step.rationale) == (Decision.CALL, "Look it up.")
    assert (step.calls[0].name, step.calls[0].arguments) == ("weather", '{"a": 1}')


@pytest.mark.parametrize(
    ("caller", "name", "arguments"),
    [
        ("I do not know which one.", "none", "{}"),
        ("Action: weather", "weather", "{}"),
        ("Action Input: {}", "none", "{}"),
        ("Action: \nAction Input: {}", "", "{}"),
        ("Action: a\nAction: b\nAction Input: 1\nAction Input: {", "b", "{"),
        ('Action: a\nAction Input: {"q": "Action: b"}', 'b"}', '{"q": "Action: b"}'),
    ],
)
def test_the_last_marker_counts_in_a_callers_text(caller: str, name: str, arguments: str) -> None:
    (call,) = parse_step(f"assistant: Next: caller.</s>caller: {caller}").calls
    assert (call.name, call.arguments) == (name, arguments)


def test_a_call_ends_at_the_second_end_token() -> None:
    (call,) = parse_step("x Next: caller.</s>Action: a\nAction Input: {}</s>Action: b").calls
    assert call.name == "a"


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("Next: conclusion and Next: give up", Decision.GIVE_UP),
        ("Next: caller.</s>Next: conclusion.", Decision.FINISH),
        ("no marker at all", Decision.CALL),
        ("", Decision.CALL),
    ],
)
def test_decisions_are_searched_in_a_fixed_order(text: str, decision: Decision) -> None:
    assert parse_step(text).decision is decision


def test_a_call_without_a_callers_text_holds_no_call() -> None:
    assert parse_step("I stop here").calls == ()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Next: conclusion.</s>conclusion: It rains.</s>", "It rains."),
        ("Next: conclusion.</s>conclusion: a conclusion: b", "b"),
        ("Next: conclusion.</s>It rains.", "Next: conclusion.It rains."),
        ("Next: conclusion.</s>conclusion:", ""),
    ],
)
def test_the_answer_follows_the_last_header(text: str, answer: str) -> None:
    assert parse_step(text).answer == answer


PIECES = ("Next: ", "caller", "conclusion", ":", " ", "</s>", "Action:", "Action Input:", "{", "x")


@given(st.lists(st.sampled_from(PIECES)))
def test_no_predicted_text_stops_the_reader_or_the_scores(parts: list[str]) -> None:
    text = "".join(parts)
    step = parse_step(text)
    assert len(step.calls) <= 1
    assert (step.answer is not None) == (step.decision is Decision.FINISH)


def test_pairs_carry_the_tool_list(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", [record(), record(predictions="")])
    (reference, prediction), (_, empty) = read_predictions(path)
    assert reference.tool_names == ("weather",)
    assert reference.calls == prediction.calls
    assert empty.decision is Decision.CALL and not empty.calls
    assert read_groups(path) == ["Rain?", "Rain?"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, "valid list"),
        ([record(), {"tools": []}], "record 2: reference: Field required"),
        ([record(tools=[{"name": "x"}])], "record 1: tools.0.Name"),
        ([record(predictions=None)], "record 1: predictions"),
        ([record(reference="Next: caller.")], "record 1: the reference is a call without"),
    ],
)
def test_a_bad_file_is_a_data_error_that_names_the_record(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_predictions(write(tmp_path / "p.json", value))


@pytest.mark.parametrize(("content", "message"), [(b"[1,\n oops", "line 2: not JSON"), (b"\xff", "not UTF-8")])
def test_an_unreadable_file_is_a_data_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_predictions(path)
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "missing.json")
