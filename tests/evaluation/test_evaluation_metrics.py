"""The five static metrics: one hand-computed case for each rule of the reference."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.evaluation.metrics import METRICS, StepPrediction, StepReference, paper_scores, rouge_l, step_scores
from alpha_umi.trajectory import Decision, ToolCall

TOOLS = ("weather", "trains")


def call(name: str, arguments: str = "{}", malformed: bool = False) -> ToolCall:
    return ToolCall("c", name, arguments, malformed)


def wants(*calls: ToolCall) -> StepReference:
    return StepReference(TOOLS, Decision.CALL, calls)


def makes(*calls: ToolCall) -> StepPrediction:
    return StepPrediction(Decision.CALL, calls)


def arg_f1(expected: str, given: str) -> float | None:
    return step_scores(wants(call("weather", expected)), makes(call("weather", given)))["arg_f1"]


def test_plan_acc_counts_every_step() -> None:
    answers = StepReference(TOOLS, Decision.FINISH, answer="yes")
    gives_up = StepReference(TOOLS, Decision.GIVE_UP)
    right = [
        (wants(call("weather")), makes(call("trains"))),
        (answers, StepPrediction(Decision.FINISH, answer="no")),
        (gives_up, StepPrediction(Decision.GIVE_UP)),
    ]
    wrong = [(gives_up, StepPrediction(Decision.FINISH, answer="no"))]
    scores = paper_scores(right + wrong)
    assert scores.plan_acc == 0.75
    assert scores.n["plan_acc"] == scores.n["hallu"] == 4


def test_act_em_looks_at_the_name_only_and_only_where_the_reference_calls() -> None:
    wanted = wants(call("weather", '{"city": "Oslo"}'))
    assert step_scores(wanted, makes(call("weather", "nonsense")))["act_em"] == 1.0
    assert step_scores(wanted, makes(call("trains", '{"city": "Oslo"}')))["act_em"] == 0.0
    assert step_scores(wanted, StepPrediction(Decision.FINISH, answer="Rain."))["act_em"] == 0.0
    assert step_scores(StepReference(TOOLS, Decision.GIVE_UP), makes(call("weather")))["act_em"] is None


def test_a_step_without_a_call_is_named_none() -> None:
    assert step_scores(wants(), StepPrediction(Decision.GIVE_UP))["act_em"] == 1.0
    assert step_scores(wants(), makes())["arg_f1"] == 1.0
    assert step_scores(wants(call("weather")), makes())["act_em"] == 0.0


@pytest.mark.parametrize("decision", list(Decision))
def test_hallucinations_count_whatever_the_reference_is(decision: Decision) -> None:
    reference = StepReference(TOOLS, decision)
    assert step_scores(reference, makes(call("invented")))["hallu"] == 1.0
    assert step_scores(reference, makes(call("trains")))["hallu"] == 0.0


def test_no_call_is_no_hallucination_but_an_empty_name_is() -> None:
    reference = wants(call("weather"))
    assert step_scores(reference, makes())["hallu"] == 0.0
    assert step_scores(reference, makes(call("none")))["hallu"] == 0.0
    assert step_scores(reference, makes(call("", "blah", malformed=True)))["hallu"] == 0.0
    assert step_scores(reference, makes(call("")))["hallu"] == 1.0
    assert step_scores(reference, StepPrediction(Decision.FINISH, (call("invented"),), "x"))["hallu"] == 0.0


@pytest.mark.parametrize(
    ("expected", "given", "score"),
    [
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 1.0),
        ('{"a": 1}', '{"a": 2}', 0.5),
        ('{"a": 1, "b": 2}', '{"a": 1}', 2 / 3),  # P 1, R 1/2
        ('{"a": 1}', '{"a": 1, "b": 2}', 2 / 3),  # P 1/2, R 1
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 3, "c": 4}', 0.6),  # credit 1.5: P 1/2, R 3/4
        ('{"a": 1}', '{"b": 1}', 0.0),
        ('{"a": 1}', "{}", 0.0),
        ("{}", "{}", 1.0),
        ("{}", '{"a": 1}', 0.0),
        ("{}", "[]", 0.0),
        ("{}", "", 0.0),
        ('{"a": 1}', '{"a": 1', 0.0),
        ('{"a": 1}', '["a"]', 0.0),
        ('{"a": 1}', '{"a": 1.0}', 1.0),
        ('{"a": 1}', '{"a": true}', 1.0),
        ('{"a": 1}', '{"a": "1"}', 0.5),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', 0.5),
        ('{"a": 1}', '{"a": 2, "a": 1}', 1.0),
        ('["a"]', '["a"]', 0.0),
        ("not json", '{"a": 1}', None),
    ],
)
def test_arg_f1(expected: str, given: str, score: float | None) -> None:
    assert arg_f1(expected, given) == (score if score is None else pytest.approx(score))


def test_a_wrong_name_is_zero_even_where_the_reference_is_not_json() -> None:
    scores = step_scores(wants(call("weather", "not json")), makes(call("trains", "{}")))
    assert (scores["arg_f1"], scores["easy_f1"], scores["hard_f1"]) == (0.0, 0.0, 0.0)


def test_easy_and_hard_split_by_the_reference_and_share_wrong_names() -> None:
    pairs = [
        (wants(call("weather", "{}")), makes(call("weather", "{}"))),
        (wants(call("weather", '{"a": 1}')), makes(call("weather", '{"a": 2}'))),
        (wants(call("weather", '{"a": 1}')), makes(call("trains", '{"a": 1}'))),
    ]
    scores = paper_scores(pairs)
    assert (scores.easy_f1, scores.hard_f1, scores.arg_f1) == (0.5, 0.25, 0.5)
    assert (scores.n["easy_f1"], scores.n["hard_f1"], scores.n["arg_f1"]) == (2, 2, 3)


def test_a_malformed_call_with_a_right_name_has_no_arguments() -> None:
    scores = step_scores(wants(call("weather", '{"name": 1}')), makes(call("weather", '{"name": 1}', malformed=True)))
    assert (scores["act_em"], scores["arg_f1"]) == (1.0, 0.0)


def test_several_calls_are_paired_by_name_in_order() -> None:
    wanted = wants(call("weather", '{"a": 1}'), call("trains"), call("weather", '{"a": 2}'))
    reordered = makes(call("trains"), call("weather", '{"a": 1}'), call("weather", '{"a": 3}'))
    scores = step_scores(wanted, reordered)
    assert scores["act_em"] == 1.0
    assert scores["arg_f1"] == pytest.approx((1 + 1 + 0.5) / 3)
    short = step_scores(wanted, makes(call("weather", '{"a": 1}')))
    assert (short["act_em"], short["arg_f1"]) == (0.0, pytest.approx(1 / 3))
    extra = step_scores(wants(call("trains")), makes(call("trains"), call("invented"), call("made up")))
    assert (extra["act_em"], extra["arg_f1"], extra["hallu"]) == (0.0, pytest.approx(1 / 3), 1.0)


def test_rouge_l_by_hand() -> None:
    # Four of four reference words in order, four of six written: P 2/3, R 1, F 0.8.
    assert rouge_l("it leaves today at about nine", "it leaves at nine") == pytest.approx(0.8, abs=1e-7)
    assert rouge_l("same words", "same words") == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("empty", ["", ".", "..."])
def test_an_empty_answer_or_reference_scores_zero(empty: str) -> None:
    assert rouge_l(empty, "an answer") == rouge_l("an answer", empty) == 0.0


def test_an_answer_that_is_missing_is_compared_as_the_word_none() -> None:
    reference = StepReference(TOOLS, Decision.FINISH, answer="none")
    assert step_scores(reference, StepPrediction(Decision.GIVE_UP))["rouge_l"] == pytest.approx(1.0, abs=1e-7)
    assert step_scores(reference, StepPrediction(Decision.FINISH, answer=""))["rouge_l"] == 0.0


def test_a_long_sentence_does_not_exhaust_the_stack() -> None:
    before = sys.getrecursionlimit()
    hypothesis, reference = " ".join(f"a{i}" for i in range(1500)), " ".join(f"b{i}" for i in range(60))
    assert rouge_l(hypothesis, reference) == 0.0
    assert sys.getrecursionlimit() == before


def test_metrics_without_a_scored_step_are_none() -> None:
    scores = paper_scores([(StepReference(TOOLS, Decision.GIVE_UP), StepPrediction(Decision.GIVE_UP))])
    assert (scores.plan_acc, scores.hallu) == (1.0, 0.0)
    assert scores.act_em is scores.arg_f1 is scores.rouge_l is None
    assert set(scores.ci95) == {"plan_acc", "hallu"}
    nothing = paper_scores([])
    assert nothing.plan_acc is None and nothing.n["plan_acc"] == 0 and not nothing.ci95


def test_json_has_the_documented_shape() -> None:
    pairs = [(wants(call("weather")), makes(call("weather")))] * 3
    written = json.loads(json.dumps(paper_scores(pairs, ["a", "a", "b"]).to_json()))
    assert set(written) == {*METRICS, "n", "ci95"}
    assert set(written["n"]) == set(METRICS)
    assert written["ci95"]["act_em"] == [1.0, 1.0]


def test_groups_must_be_one_a_step() -> None:
    with pytest.raises(ValueError, match="1 steps but 2 groups"):
        paper_scores([(wants(), makes())], ["a", "b"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
written_arguments = st.text(max_size=12) | json_values.map(json.dumps) | st.just("[" * 100_000)


@given(expected=st.dictionaries(st.text(max_size=3), json_values, max_size=4), given=written_arguments)
def test_whatever_was_written_scores_between_0_and_1_and_the_reference_itself_1(
    expected: dict[str, object], given: str
) -> None:
    score = arg_f1(json.dumps(expected), given)
    assert score is not None and 0.0 <= score <= 1.0
    assert arg_f1(json.dumps(expected), json.dumps(expected)) == 1.0
