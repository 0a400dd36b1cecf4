"""What is wrong in the published procedure: each test fails in `compat`, which keeps it, and passes in `fixed`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from alpha_umi.judges.aggregate import pass_figures, published_pass_figures, published_votes
from alpha_umi.judges.answers import Answers
from alpha_umi.judges.judge import FunctionJudge
from alpha_umi.judges.passing import judge_pass
from alpha_umi.judges.questions import CHECK_ANSWER, CHECK_RUN, CHECK_TASK
from alpha_umi.judges.verdicts import Basis, Mode, PassVerdict, Status
from tests.judges.runs import Heard, answered, asker, call, compare, judge, run, side, told

Judged = dict[str, PassVerdict]

both_modes = pytest.mark.parametrize(
    "mode", ["fixed", pytest.param("compat", marks=pytest.mark.xfail(strict=True, reason="kept as published"))]
)


def passed(mode: str, judge: FunctionJudge, answers: Answers, queries: list[str]) -> Judged:
    return asyncio.run(judge_pass(asker(judge), "system", answers, queries, Mode(mode), 1))


def pass_rate(mode: str, judge: FunctionJudge, answers: Answers, queries: list[str]) -> float:
    verdicts = passed(mode, judge, answers, queries)
    if mode == "compat":
        return published_pass_figures(published_votes(verdicts), 1)["pass_rate"]
    return pass_figures(verdicts)["pass_rate"]["value"]


@both_modes
def test_a_query_without_an_answer_counts_as_not_solved(mode: str) -> None:
    _, answers = side("a", answered("1", "yes"))
    assert pass_rate(mode, judge(), answers, ["1", "2"]) == 0.5


@both_modes
def test_a_judge_that_always_takes_the_first_answer_makes_nobody_win(mode: str) -> None:
    queries = [str(number) for number in range(20)]
    reference = side("a", *(answered(name, "short") for name in queries))
    candidate = side("b", *(answered(name, "long") for name in queries))
    verdicts = compare(mode, judge(prefers=lambda question: 0), reference, candidate, queries)
    assert {verdict.outcome for verdict in verdicts.values()} == {"tie"}


@both_modes
def test_labels_of_an_earlier_pass_are_used_and_not_judged_again(mode: str) -> None:
    reference, candidate = side("a", answered("1", "yes")), side("b", answered("1", "no"))
    solved = {"1": PassVerdict("1", Basis.JUDGE, (Status.SOLVED,))}
    unsolved = {"1": PassVerdict("1", Basis.JUDGE, (Status.UNSOLVED,))}
    heard = Heard(judge(status=lambda question: "Solved" if "no" in question.prompt else "Unsolved"))
    given: dict[str, Any] = {"labels": (solved, unsolved)} if mode == "fixed" else {}  # it has no place for them
    verdicts = compare(mode, heard, reference, candidate, ["1"], **given)
    assert not heard.questions
    assert verdicts["1"].outcome == "lose"


@both_modes
def test_identical_answers_are_a_tie(mode: str) -> None:
    verdicts = compare(mode, judge(), side("a", answered("1", "same")), side("b", answered("1", "same")), ["1"])
    assert verdicts["1"].outcome == "tie"


@both_modes
def test_two_runs_say_the_same(mode: str) -> None:
    queries = [str(number) for number in range(64)]
    first, second = (side(name, *(answered(query, "same") for query in queries)) for name in "ab")

    def outcomes() -> list[str]:
        return [verdict.outcome for verdict in compare(mode, judge(), first, second, queries, seed=None).values()]

    assert outcomes() == outcomes()


@both_modes
def test_two_systems_without_an_answer_are_a_tie(mode: str) -> None:
    assert compare(mode, judge(), side("a"), side("b"), ["1"])["1"].outcome == "tie"


@both_modes
def test_a_reply_that_quotes_the_word_finish_does_not_finish_a_run(mode: str) -> None:
    quoting = run("1", call("look_up", "call {'name': 'Finish'} when done", key="x"), final="42")
    heard = Heard(judge())
    assert passed(mode, heard, {"1": quoting}, ["1"])["1"].label is Status.UNSOLVED
    assert not heard.questions


@both_modes
def test_an_answer_that_quotes_the_word_for_giving_up_is_still_judged(mode: str) -> None:
    quoting = run("1", told("The value give_up_and_restart is what the tool is documented to take."))
    assert passed(mode, judge(), {"1": quoting}, ["1"])["1"].label is Status.SOLVED


@both_modes
def test_the_judge_is_not_told_which_method_made_the_answer(mode: str) -> None:
    heard = Heard(judge(status=lambda question: "Unsure"))
    passed(mode, heard, {"1": run("1", told("yes"), method="DFS_woFilter_w2")}, ["1"])
    assert heard.names() == [CHECK_ANSWER, CHECK_RUN]
    assert all("DFS_woFilter_w2" not in question.prompt for question in heard.questions)


@both_modes
def test_nothing_is_asked_whose_answer_changes_nothing(mode: str) -> None:
    heard = Heard(judge(status=lambda question: "Unsolved"))
    compare(mode, heard, side("a", answered("1", "no")), side("b", answered("1", "nothing")), ["1"])
    assert CHECK_TASK not in heard.names()


@both_modes
def test_text_beyond_ascii_is_shown_as_it_is(mode: str) -> None:
    heard = Heard(judge(status=lambda question: "Unsure"))
    passed(mode, heard, {"1": run("1", call("look_up", "東京は晴れ", key="x"), told("晴れです"))}, ["1"])
    assert "東京は晴れ" in heard.questions[-1].prompt


@both_modes
def test_the_end_of_a_long_answer_counts_in_a_comparison(mode: str) -> None:
    long = "word " * 300
    heard = Heard(judge(status=lambda question: "Solved" if "the point" in question.prompt else "Unsolved"))
    reference = side("a", answered("1", "nothing"))
    verdicts = compare(mode, heard, reference, side("b", answered("1", long + "the point")), ["1"])
    assert verdicts["1"].outcome == "win"


@pytest.mark.parametrize("shown", [lambda question: 2, lambda question: 0])
def test_a_tie_that_the_judge_finds_is_kept(shown: Callable[..., int]) -> None:
    verdict = compare(
        "fixed", judge(prefers=shown), side("a", answered("1", "x")), side("b", answered("1", "y")), ["1"]
    )["1"]
    assert (verdict.outcome, verdict.score) == ("tie", 0.5)
