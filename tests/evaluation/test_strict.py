"""The static metrics in strict mode: what differs from the paper's, and what holds whatever was written."""

from __future__ import annotations

import doctest
import json
import os
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.tokenizers import DefaultTokenizer

from alpha_umi.evaluation.metrics import METRICS, StepPrediction, StepReference, paper_scores
from alpha_umi.evaluation.reference_predictions import read_groups, read_predictions
from alpha_umi.evaluation.strict import (
    STRICT_METRICS,
    answer_rouge_l,
    declared_parameters,
    strict_scores,
    strict_step_scores,
    words,
)
from alpha_umi.trajectory import Decision, Tool, ToolCall

Pair = tuple[StepReference, StepPrediction]

TOOLS = ("weather", "trains")
DECLARED = {"weather": frozenset("ab"), "trains": frozenset("bc")}
LOWER_IS_BETTER = {"hallu", "hallu_args"}
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
SHARED = Path(os.environ.get("ALPHA_UMI_DATA") or Path(__file__).parents[3] / "shared" / "data")
PREDICTIONS = SHARED / "alpha-umi" / "reference_scoring" / "predictions.json"


def call(name: str, arguments: str = "{}", malformed: bool = False) -> ToolCall:
    return ToolCall("c", name, arguments, malformed)


def wants(*calls: ToolCall) -> StepReference:
    return StepReference(TOOLS, Decision.CALL, calls, parameters=DECLARED)


def makes(*calls: ToolCall) -> StepPrediction:
    return StepPrediction(Decision.CALL, calls)


def arg_f1(expected: str, given: str) -> float | None:
    return strict_step_scores(wants(call("weather", expected)), makes(call("weather", given)))["arg_f1"]


def same(expected: str, given: str) -> bool:
    return strict_step_scores(wants(call("weather", expected)), makes(call("weather", given)))["act_em"] == 1.0


def perfect(reference: StepReference) -> StepPrediction:
    return StepPrediction(reference.decision, reference.calls, reference.answer)


# ---- actions --------------------------------------------------------------------------------------------------------


def test_an_action_is_right_only_with_its_name_and_all_its_arguments() -> None:
    wanted = wants(call("weather", '{"a": 1}'))
    right, other_value, other_name, no_call = (
        strict_step_scores(wanted, prediction)["act_em"]
        for prediction in (
            makes(call("weather", '{"a":1.0}')), makes(call("weather", '{"a": 2}')), makes(call("trains", '{"a": 1}')),
            makes(),
        )
    )  # fmt: skip
    assert (right, other_value, other_name, no_call) == (1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("wanted", [Decision.FINISH, Decision.GIVE_UP])
@pytest.mark.parametrize("decision", list(Decision))
def test_steps_without_a_reference_call_are_scored(wanted: Decision, decision: Decision) -> None:
    scores = strict_step_scores(StepReference(TOOLS, wanted), StepPrediction(decision, (call("weather"),), "x"))
    assert scores["act_em"] == scores["plan_acc"] == float(decision is wanted)
    assert scores["no_call"] == float(decision is not Decision.CALL)
    assert scores["act_em_call"] is scores["arg_f1"] is None


def test_calls_count_only_under_the_decision_to_call() -> None:
    ends = StepPrediction(Decision.FINISH, (call("weather", '{"z": 1}'), call("invented")), "x")
    scores = strict_step_scores(wants(call("weather", '{"z": 1}')), ends)
    assert (scores["act_em"], scores["arg_f1"], scores["hallu"], scores["hallu_args"]) == (0.0, 0.0, 0.0, 0.0)
    assert strict_step_scores(wants(), StepPrediction(Decision.GIVE_UP))["arg_f1"] == 0.0


def test_calls_of_a_turn_are_a_multiset() -> None:
    one, two = call("weather", '{"a": 1}'), call("weather", '{"a": 2}')
    assert strict_step_scores(wants(one, two, one), makes(one, one, two))["act_em"] == 1.0
    assert strict_step_scores(wants(one, two, one), makes(one, two, two))["act_em"] == 0.0
    assert strict_step_scores(wants(one, two, one), makes(one, two, two))["arg_f1"] == pytest.approx(2 / 3)
    assert strict_step_scores(wants(one), makes(one, one))["arg_f1"] == 0.5
    assert strict_step_scores(wants(one, two), makes(call("trains"), two))["arg_f1"] == 0.5


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "given", "score"),
    [
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 1.0),
        ('{"a": 1}', '{"a": 2}', 0.0),
        ('{"a": 1, "b": 2}', '{"a": 1}', 2 / 3),  # P 1, R 1/2
        ('{"a": 1}', '{"a": 1, "b": 2}', 2 / 3),  # P 1/2, R 1
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 3, "c": 4}', 0.4),  # P 1/3, R 1/2
        ("{}", "{}", 1.0),
        ("{}", '{"a": 1}', 0.0),
        ('{"a": 1}', "{}", 0.0),
        ("{}", "", 0.0),
        ("{}", "[]", 0.0),
        ('{"a": 1}', '{"a": 1', 0.0),
        ('["a"]', ' ["a"]', 1.0),
        ("not json", "not json", 1.0),
        ("not json", '{"a": 1}', 0.0),
    ],
)
def test_arg_f1(expected: str, given: str, score: float) -> None:
    assert arg_f1(expected, given) == pytest.approx(score)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("1", "1.0", True),
        ("100", "1e2", True),
        ("0", "-0.0", True),
        ("0.10", "0.1", True),
        ("9007199254740993", "9007199254740993.0", True),
        ("9007199254740993", "9007199254740992", False),
        ("1e400", "1e401", False),
        ("1" * 5000, "1" * 5000 + ".0", True),
        ("1", "-1", False),
        ("1", "10", False),
        ("1", "true", False),
        ("0", "false", False),
        ("0", "null", False),
        ("1", '"1"', False),
        ('"1e0"', "1", False),
        ('"é"', '"e\u0301"', False),
        ('"é"', '"\\u00e9"', True),
        ('"a"', '"A"', False),
        ("[1, 2]", "[2, 1]", False),
        ("[[1]]", "[1]", False),
        ('{"x": 1, "y": [true]}', '{"y": [true], "x": 1.0}', True),
        ('{"x": null}', "{}", False),
        ('{"x": 2, "x": 1}', '{"x": 1}', True),
    ],
)
def test_values_are_compared_as_json(one: str, other: str, equal: bool) -> None:
    for expected, predicted in ((one, other), (other, one)):
        assert same(f'{{"a": {expected}}}', f'{{"a": {predicted}}}') is equal
        assert same(expected, predicted) is equal


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e9999999999999999999", "[" * 100_000, '{"a": NaN}', "", "{"])
def test_what_is_not_json_equals_the_same_text_only(text: str) -> None:
    assert same(text, text)
    assert not same(text, f"{text} ")
    assert not same(text, json.dumps(text))


def test_a_malformed_call_equals_no_call_that_was_read() -> None:
    text = '{"a": 1}'
    assert strict_step_scores(wants(call("weather", text)), makes(call("weather", text, True)))["act_em"] == 0.0
    assert strict_step_scores(wants(call("weather", "x")), makes(call("weather", "x", True)))["arg_f1"] == 0.0


def test_every_call_step_is_either_easy_or_hard_whatever_was_predicted() -> None:
    pairs = [
        (wants(call("weather")), makes(call("weather"))),
        (wants(call("weather")), makes(call("trains"))),
        (wants(call("weather", "not json")), makes(call("weather"))),
        (wants(call("weather"), call("weather", '{"a": 1}')), makes(call("weather"))),
    ]
    scores = strict_scores(pairs)
    assert (scores.easy_f1, scores.hard_f1, scores.arg_f1) == (0.5, 0.25, 0.375)
    assert (scores.n["easy_f1"], scores.n["hard_f1"], scores.n["arg_f1"]) == (2, 2, 4)


# ---- hallucinations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", list(Decision))
def test_invented_names_and_parameters_count_whatever_the_reference_is(decision: Decision) -> None:
    reference = StepReference(TOOLS, decision, parameters=DECLARED)

    def invented(*calls: ToolCall) -> tuple[float | None, float | None]:
        scores = strict_step_scores(reference, makes(*calls))
        return scores["hallu"], scores["hallu_args"]

    assert invented(call("weather", '{"a": 1, "b": {"z": 1}}')) == (0.0, 0.0)
    assert invented(call("weather", '{"a": 1}'), call("weather", '{"c": 1}')) == (0.0, 1.0)
    assert invented(call("invented", '{"c": 1}')) == (1.0, 0.0)
    assert invented(call("weather", "broken"), call("trains", '["c"]')) == (0.0, 0.0)


def test_no_call_is_no_hallucination_but_an_empty_name_is() -> None:
    reference = wants(call("weather"))
    silent = (makes(), makes(call("none")), makes(call("", "blah", malformed=True)))
    assert [strict_step_scores(reference, prediction)["hallu"] for prediction in silent] == [0.0, 0.0, 0.0]
    assert strict_step_scores(reference, makes(call("")))["hallu"] == 1.0
    assert strict_step_scores(reference, makes(call("made up", "x", malformed=True)))["hallu"] == 1.0


def test_without_declared_parameters_none_is_called_invented() -> None:
    step = replace(wants(call("weather")), parameters=None), makes(call("weather", '{"z": 1}'))
    scores = strict_scores([step])
    assert scores.hallu_args is None
    assert scores.n["hallu_args"] == 0 and "hallu_args" not in scores.ci95


def test_declared_parameters_are_read_off_closed_schemas() -> None:
    properties = {"properties": {"a": {}, "b": {}}}
    schemas: dict[str, dict[str, Any]] = {
        "closed": properties,
        "said so": properties | {"additionalProperties": False},
        "none": {},
        "odd": {"properties": ["a"]},
        "open": properties | {"additionalProperties": {"type": "string"}},
        "patterns": properties | {"patternProperties": {"^x": {}}},
        "parts": properties | {"oneOf": []},
    }
    tools = [Tool.of(name, "", schema) for name, schema in schemas.items()]
    empty: frozenset[str] = frozenset()
    expected = {"closed": frozenset("ab"), "said so": frozenset("ab"), "none": empty, "odd": empty}
    assert declared_parameters(tools) == expected
    assert declared_parameters([*tools, Tool.of("closed", "", {}), Tool.of("open", "", {})]) == expected
    assert declared_parameters([]) == {}


# ---- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 3.5 °C, in Oslo_West!", ["it", "s", "3", "5", "c", "in", "oslo", "west"]),
        ("明天在Oslo下雨。", ["明", "天", "在", "oslo", "下", "雨"]),
        ("東京タワーへ", ["東", "京", "タ", "ワ", "ー", "へ"]),
        ("１２時・ﾊﾟﾘ", ["12", "時", "パ", "リ"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("내일은 비가", ["내일은", "비가"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Завтра дождь", ["завтра", "дождь"]),
        ("e\u0301te\u0301 ÉTÉ", ["été", "été"]),
        ("… \u0301 -- 👍", []),
    ],
)
def test_words_of_many_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_text_are_those_of_rouge_score(text: str) -> None:
    assert words(text) == DefaultTokenizer().tokenize(text)


def test_rouge_l_by_hand() -> None:
    assert answer_rouge_l("it leaves today at about nine", "It leaves at nine.") == pytest.approx(0.8)  # P 2/3, R 1
    assert answer_rouge_l("明天下雨", "明天晴") == pytest.approx(4 / 7)  # P 2/4, R 2/3
    assert answer_rouge_l("雨下", "下雨") == 0.5


def test_an_answer_without_a_word_is_right_only_where_it_is_the_reference() -> None:
    assert answer_rouge_l("👍", "👍") == answer_rouge_l("", "") == 1.0
    assert answer_rouge_l("", "yes") == answer_rouge_l("yes", "") == answer_rouge_l("👍", "👎") == 0.0


def test_an_answer_that_is_missing_is_zero() -> None:
    reference = StepReference(TOOLS, Decision.FINISH, answer="none")
    for prediction in (StepPrediction(Decision.GIVE_UP), makes(call("none")), StepPrediction(Decision.FINISH)):
        assert strict_step_scores(reference, prediction)["rouge_l"] == 0.0


# ---- all of it ------------------------------------------------------------------------------------------------------


def test_the_confusion_matrix_counts_every_step() -> None:
    gives_up = StepReference(TOOLS, Decision.GIVE_UP)
    pairs: list[Pair] = [
        (wants(call("weather")), makes()),
        (gives_up, makes(call("trains"))),
        (gives_up, StepPrediction(Decision.GIVE_UP)),
    ]
    scores = strict_scores(pairs)
    assert scores.confusion == {
        "call": {"call": 1, "finish": 0, "give_up": 0},
        "finish": {"call": 0, "finish": 0, "give_up": 0},
        "give_up": {"call": 1, "finish": 0, "give_up": 1},
    }
    assert (scores.plan_acc_call, scores.plan_acc_finish, scores.plan_acc_give_up) == (1.0, None, 0.5)


def test_json_has_the_papers_keys_and_more() -> None:
    pairs = [(wants(call("weather")), makes(call("weather")))] * 3
    written = json.loads(json.dumps(strict_scores(pairs, ["a", "a", "b"]).to_json()))
    assert set(written) == {*STRICT_METRICS, "n", "ci95", "confusion"} > set(paper_scores(pairs).to_json())
    assert set(written["n"]) == set(STRICT_METRICS) > set(METRICS)
    assert written["ci95"]["act_em"] == [1.0, 1.0]
    assert written["rouge_l"] is None and "rouge_l" not in written["ci95"]


def test_no_steps_have_no_figures() -> None:
    scores = strict_scores([])
    assert all(getattr(scores, metric) is None for metric in STRICT_METRICS)
    assert not any(scores.n.values()) and not scores.ci95


def test_groups_must_be_one_a_step() -> None:
    with pytest.raises(ValueError, match="1 steps but 2 groups"):
        strict_scores([(wants(), makes())], ["a", "b"])


def test_the_examples_of_the_docs_are_right() -> None:
    """One namespace for all blocks; a closing fence would otherwise be read as output."""
    found: dict[str, Any] = {}
    runner = doctest.DocTestRunner()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)):
        test = doctest.DocTestParser().get_doctest(block, found, f"block {number}", str(DOCS), 0)
        runner.run(test, clear_globs=False)
        found = test.globs
    assert runner.summarize().failed == 0 and runner.tries > 20


def test_the_docs_name_every_figure() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [metric for metric in STRICT_METRICS if f"`{metric}`" not in text] == []


@pytest.mark.skipif(not PREDICTIONS.is_file(), reason=f"no {PREDICTIONS}; set ALPHA_UMI_DATA to the data sets' folder")
def test_no_step_of_the_papers_predictions_is_left_out() -> None:
    pairs, groups = read_predictions(PREDICTIONS), read_groups(PREDICTIONS)
    paper, strict = paper_scores(pairs, groups), strict_scores(pairs, groups)
    assert (strict.plan_acc, strict.hallu) == (paper.plan_acc, paper.hallu)
    assert strict.n["act_em"] == strict.n["hallu"] == sum(sum(row.values()) for row in strict.confusion.values()) == 728
    assert (strict.n["arg_f1"], strict.n["easy_f1"] + strict.n["hard_f1"], strict.n["rouge_l"]) == (528, 528, 135)
    for metric, (low, high) in strict.ci95.items():
        assert low < getattr(strict, metric) < high


# ---- whatever was written -------------------------------------------------------------------------------------------

numbers = st.integers(-3, 3) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
written = st.one_of(
    st.dictionaries(st.sampled_from("abcz"), json_values, max_size=3).map(json.dumps),
    json_values.map(json.dumps),
    st.sampled_from(["", "{}", "NaN", '{"a": Infinity}', "[" * 100_000, "9" * 5000, "1e9999999999999999999"]),
    st.text(max_size=8),
)
names = st.sampled_from([*TOOLS, "none", "", "invented"])
any_calls = st.lists(st.builds(call, names, written, st.booleans()), max_size=3).map(tuple)
answers = st.none() | st.text(max_size=12) | st.sampled_from(["Rain.", "It rains all day", "明天下雨"])
declared = st.none() | st.just(DECLARED) | st.just({"weather": frozenset[str]()})
references = st.builds(StepReference, st.just(TOOLS), st.sampled_from(Decision), any_calls, answers, declared)
predictions = st.builds(StepPrediction, st.sampled_from(Decision), any_calls, answers)
steps = st.lists(st.tuples(references, predictions), max_size=4)
clean_calls = st.lists(
    st.one_of(
        [
            st.builds(call, st.just(name), st.dictionaries(st.sampled_from(sorted(keys)), json_values).map(json.dumps))
            for name, keys in DECLARED.items()
        ]
    ),
    max_size=3,
).map(tuple)
clean_references = st.builds(
    StepReference, st.just(TOOLS), st.sampled_from(Decision), clean_calls, answers, st.just(DECLARED)
)


def figures(pairs: list[Pair]) -> dict[str, float | None]:
    scores = strict_scores(pairs)
    return {metric: getattr(scores, metric) for metric in STRICT_METRICS}


@given(st.lists(clean_references, max_size=4))
def test_a_perfect_prediction_has_perfect_figures(wanted: list[StepReference]) -> None:
    for metric, value in figures([(reference, perfect(reference)) for reference in wanted]).items():
        assert value in (None, 0.0 if metric in LOWER_IS_BETTER else 1.0), metric


@given(references)
def test_repeating_the_reference_is_right_even_where_it_is_broken(reference: StepReference) -> None:
    scores = strict_step_scores(reference, perfect(reference))
    assert {scores[metric] for metric in STRICT_METRICS if metric not in LOWER_IS_BETTER} <= {1.0, None}


@given(steps, st.lists(st.sampled_from("xy"), min_size=4, max_size=4))
def test_figures_and_intervals_are_fractions_whatever_was_written(pairs: list[Pair], groups: list[str]) -> None:
    scores = strict_scores(pairs, groups[: len(pairs)])
    for metric in STRICT_METRICS:
        value = getattr(scores, metric)
        assert (value is None) == (scores.n[metric] == 0) == (metric not in scores.ci95)
        if value is not None:
            low, high = scores.ci95[metric]
            assert 0.0 <= value <= 1.0 and 0.0 <= low <= high <= 1.0
    json.dumps(scores.to_json(), allow_nan=False)


@given(steps, st.randoms(use_true_random=False))
def test_the_order_of_steps_does_not_matter(pairs: list[Pair], random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    assert figures(shuffled) == pytest.approx(figures(pairs))
    assert strict_scores(shuffled).n == strict_scores(pairs).n
    assert strict_scores(shuffled).confusion == strict_scores(pairs).confusion


@given(references, predictions, st.randoms(use_true_random=False))
def test_the_order_of_calls_in_a_turn_does_not_matter(
    reference: StepReference, prediction: StepPrediction, random: Any
) -> None:
    wanted = replace(reference, calls=tuple(random.sample(reference.calls, len(reference.calls))))
    made = replace(prediction, calls=tuple(random.sample(prediction.calls, len(prediction.calls))))
    assert strict_step_scores(wanted, made) == pytest.approx(strict_step_scores(reference, prediction))


@given(references, predictions, predictions)
def test_what_is_scored_depends_on_the_reference_only(
    reference: StepReference, one: StepPrediction, other: StepPrediction
) -> None:
    scored = [
        {metric for metric, value in strict_step_scores(reference, prediction).items() if value is not None}
        for prediction in (one, other)
    ]
    assert scored[0] == scored[1]


@given(references, predictions)
def test_an_action_of_strict_mode_is_one_of_paper_mode(reference: StepReference, prediction: StepPrediction) -> None:
    strict, paper = strict_scores([(reference, prediction)]), paper_scores([(reference, prediction)])
    assert (strict.plan_acc, strict.hallu) == (paper.plan_acc, paper.hallu)
    if strict.act_em_call:
        assert paper.act_em == 1.0


@given(json_values, json_values)
def test_two_values_are_the_same_exactly_where_json_says_so(one: Any, other: Any) -> None:
    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(map(equal, a, b))
        numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b)]
        return Decimal(repr(a)) == Decimal(repr(b)) if all(numbers) else not any(numbers) and a == b

    assert same(json.dumps(one), json.dumps(other)) is equal(one, other)
    assert same(json.dumps(one), json.dumps(one, indent=1, sort_keys=True, ensure_ascii=False))
