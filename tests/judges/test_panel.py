"""A judge of known bias is measured as what it is, within the panel's own intervals."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.errors import UserError
from alpha_umi.judges.judge import FunctionJudge
from alpha_umi.judges.panel import Confusion, Known, known_answers, measure, pairs_of
from alpha_umi.judges.questions import SELECT, Question
from tests.judges.runs import Heard, answered, asker, judge, run, told

NOISE = 0.1


def systems(count: int, seed: int = 0) -> list[Known]:
    """Two systems' answers to so many queries, about half of them right."""
    chance = random.Random(f"truth {seed}")
    found = []
    for name in ("a", "b"):
        answers = {str(number): answered(str(number), f"{name} says so") for number in range(count)}
        found.append(Known(name, answers, {query: chance.random() < 0.5 for query in answers}))
    return found


def always_first(known: list[Known], seed: int) -> FunctionJudge:
    return judge(name="always first")


def at_random(known: list[Known], seed: int) -> FunctionJudge:
    def answer(question: Question, _: int) -> dict[str, Any]:
        chance = random.Random(f"{seed} {question.name} {question.subject} {question.vote}").random() < 0.5
        return {"index": int(chance), "answer_status": "Solved" if chance else "Unsolved"}

    return FunctionJudge("random", answer)


def noisy_oracle(known: list[Known], seed: int) -> FunctionJudge:
    """Right in nine of ten questions, whatever they are; where both answers are equally good, it picks one."""
    truth = {one.system: one.truth for one in known}

    def answer(question: Question, _: int) -> dict[str, Any]:
        chance = random.Random(f"{seed} {question.name} {question.subject} {question.vote}")
        wrong = chance.random() < NOISE
        query, *shown = question.subject
        solved = [truth[system][query] for system in shown]
        if question.name != SELECT:
            return {"answer_status": "Solved" if solved[0] != wrong else "Unsolved"}
        return {"index": chance.randrange(2) if solved[0] == solved[1] else int(solved[1] != wrong)}

    return FunctionJudge("noisy oracle", answer)


def measured(make: Callable[[list[Known], int], FunctionJudge], count: int, seed: int) -> dict[str, Any]:
    known = systems(count, seed)
    return asyncio.run(measure(asker(make(known, seed)), known, most_pairs=count, seed=seed))


def holds(figure: dict[str, Any], value: float) -> bool:
    low, high = figure["ci95"]
    return low - 1e-9 <= value <= high + 1e-9


EXPECTED: list[tuple[Callable[[list[Known], int], FunctionJudge], dict[tuple[str, str], float]]] = [
    (
        always_first,
        {
            ("pass", "kappa"): 0.0, ("pass", "sensitivity"): 1.0, ("pass", "specificity"): 0.0,
            ("win", "accuracy"): 0.5, ("win", "position_bias"): 0.5, ("win", "order_agreement"): 0.0,
        },
    ),
    (
        at_random,
        {
            ("pass", "accuracy"): 0.5, ("pass", "kappa"): 0.0, ("pass", "sensitivity"): 0.5,
            ("win", "accuracy"): 0.5, ("win", "position_bias"): 0.0, ("win", "order_agreement"): 0.5,
        },
    ),
    (
        noisy_oracle,
        {
            ("pass", "accuracy"): 1 - NOISE, ("pass", "kappa"): 1 - 2 * NOISE, ("pass", "sensitivity"): 1 - NOISE,
            ("pass", "specificity"): 1 - NOISE, ("win", "accuracy"): 1 - NOISE, ("win", "position_bias"): 0.0,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), EXPECTED, ids=["always-first", "random", "noisy-oracle"])
def test_a_judge_of_known_bias_is_measured_within_its_interval(
    make: Callable[[list[Known], int], FunctionJudge], expected: dict[tuple[str, str], float]
) -> None:
    figures = measured(make, 200, seed=2)
    for (part, name), value in expected.items():
        assert holds(figures[part][name], value), (part, name, figures[part][name])


def test_nine_of_ten_draws_are_measured_within_their_intervals() -> None:
    figures = [measured(noisy_oracle, 40, seed) for seed in range(10)]
    for part, name, value in (("pass", "accuracy", 0.9), ("pass", "kappa", 0.8), ("win", "accuracy", 0.9)):
        assert sum(holds(one[part][name], value) for one in figures) >= 9, (part, name)


def test_a_perfect_judge_and_its_opposite_are_at_the_ends() -> None:
    known = systems(40)
    truth = {one.system: one.truth for one in known}

    def told_by(right: bool) -> FunctionJudge:
        def status(question: Question) -> str:
            return "Solved" if truth[question.subject[1]][question.subject[0]] == right else "Unsolved"

        return judge(status=status)

    figures = [asyncio.run(measure(asker(told_by(right)), known)) for right in (True, False)]
    assert [one["pass"]["accuracy"]["value"] for one in figures] == [1.0, 0.0]
    assert [one["pass"]["kappa"]["value"] > 0.99 for one in figures] == [True, False]


def test_what_rules_decide_is_not_counted_to_the_judge() -> None:
    answers = {"1": answered("1", "yes"), "2": run("2", told("can't", "give_up_and_restart"))}
    heard = Heard(judge())
    figures = asyncio.run(measure(asker(heard), [Known("a", answers, {"1": True, "2": True})]))
    assert (figures["pass"]["items"], figures["pass"]["accuracy"]["value"]) == (1, 1.0)
    assert (figures["rules"]["items"], figures["rules"]["accuracy"]["value"]) == (1, 0.0)
    assert figures["win"] is None


def test_pairs_are_of_different_answers_to_one_query_and_drawn_by_the_seed() -> None:
    known = systems(30)
    known[1] = Known("b", {**known[1].answers, "0": known[0].answers["0"]}, known[1].truth)
    pairs = pairs_of(known, 100, seed=1)
    assert len(pairs) == 29
    assert "0" not in {pair.query_id for pair in pairs}
    assert pairs_of(known, 10, seed=1) == pairs[:10] != pairs_of(known, 10, seed=2)


def test_ids_of_several_test_sets_are_kept_apart(tmp_path: Any) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text('{"facts": {"1": ["yes"]}}')
    sets = {"one": {"1": answered("1", "yes")}, "two": {"1": answered("1", "no")}}
    known = known_answers(str(truth), {"a": sets}, {"one": ["1"], "two": ["1"]})
    assert known[0].truth == {"one/1": True, "two/1": False}
    with pytest.raises(UserError, match="of none of the answers"):
        known_answers("recorded", {"a": sets}, {"one": ["1"], "two": ["1"]})


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_kappa_is_agreement_beyond_chance(told_and_true: list[tuple[str, bool, bool]]) -> None:
    n = len(told_and_true)
    agree = sum(said == true for _, said, true in told_and_true) / n
    told_share = sum(said for _, said, _ in told_and_true) / n
    true_share = sum(true for _, _, true in told_and_true) / n
    chance = told_share * true_share + (1 - told_share) * (1 - true_share)
    kappa = Confusion.of(told_and_true).kappa()
    if math.isclose(chance, 1.0):
        assert kappa is None
    else:
        assert kappa == pytest.approx((agree - chance) / (1 - chance))
        interval = Confusion.of(told_and_true).kappa_interval()
        assert interval is not None
        assert -1.0 - 1e-9 <= interval[0] <= interval[1] <= 1.0 + 1e-9
