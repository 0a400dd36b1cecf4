"""Labels, preferences and figures of the repaired procedure; replies that are kept, counted and foreseen."""

from __future__ import annotations

import asyncio
import doctest
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.agent import React
from alpha_umi.errors import DataError, UserError
from alpha_umi.evaluation.kept import scored_episodes
from alpha_umi.evaluation.live import EpisodeResult
from alpha_umi.judges.aggregate import average_rate, pass_difference, pass_figures, win_figures
from alpha_umi.judges.answers import Answer, answer_of, read_answers, read_ids, read_sets
from alpha_umi.judges.asking import ATTEMPTS, Asker
from alpha_umi.judges.cache import ReplyCache
from alpha_umi.judges.checkers import check_answers, open_checker, replayed_in_toolworld
from alpha_umi.judges.estimate import REPLY_TOKENS, estimate
from alpha_umi.judges.judge import FunctionJudge
from alpha_umi.judges.passing import judge_pass
from alpha_umi.judges.questions import CHECK_ANSWER, CHECK_RUN, SELECT, Question, load_templates
from alpha_umi.judges.verdicts import VALUE, Basis, Mode, PassVerdict, Status, read_index, read_status
from alpha_umi.judges.winning import judge_win
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, ToolMessage, Trajectory, UserMessage
from tests.judges.runs import Heard, answered, asker, call, compare, judge, run, side, told

statuses = st.lists(st.none() | st.sampled_from(Status), min_size=1, max_size=7)


def passed(asking: Asker, *answers: Answer, votes: int = 1) -> dict[str, PassVerdict]:
    name, mine = side("a", *answers)
    return asyncio.run(judge_pass(asking, name, mine, list(mine), Mode.FIXED, votes))


# ---- verdicts -----------------------------------------------------------------------------------------------------


def test_an_unsure_answer_gets_a_second_look_at_the_whole_run() -> None:
    heard = Heard(judge(status=lambda question: "Unsure", second_look=lambda question: "Solved"))
    verdicts = passed(asker(heard), answered("1", "yes", looked_up="Tamiro"))
    assert heard.names() == [CHECK_ANSWER, CHECK_RUN]
    assert ["Tamiro" in question.prompt for question in heard.questions] == [False, True]
    assert (verdicts["1"].label, verdicts["1"].reasons) == (Status.SOLVED, ("because",))


@pytest.mark.parametrize(
    ("answer", "basis"),
    [
        (run("1", call("look_up", key="x")), Basis.UNFINISHED),
        (run("1"), Basis.UNFINISHED),
        (run("1", told("no way", "give_up_and_restart")), Basis.NO_ANSWER),
        (run("1", told("  ")), Basis.NO_ANSWER),
        (run("1", call("Finish", ""), final="{}"), Basis.NO_ANSWER),
    ],
)
def test_what_has_no_answer_is_unsolved_without_a_judge(answer: Answer, basis: Basis) -> None:
    heard = Heard(judge())
    verdict = passed(asker(heard), answer)["1"]
    assert (verdict.label, verdict.basis, heard.questions) == (Status.UNSOLVED, basis, [])


@given(statuses)
def test_a_label_is_what_most_votes_say_and_a_tie_is_unsure(votes: list[Status | None]) -> None:
    verdict = PassVerdict("1", Basis.JUDGE, tuple(votes))
    counts = {status: votes.count(status) for status in Status}
    most = [status for status, count in counts.items() if count and count == max(counts.values())]
    assert verdict.label is (most[0] if len(most) == 1 else Status.UNSURE)
    assert verdict.score == pytest.approx(sum(0.5 if v is None else VALUE[v] for v in votes) / len(votes))
    assert verdict.agreement is None or 0.0 <= verdict.agreement <= 1.0
    assert PassVerdict.from_json("1", json.loads(json.dumps(verdict.to_json()))) == verdict


def test_agreement_is_the_share_of_pairs_of_votes_that_agree() -> None:
    verdict = PassVerdict("1", Basis.JUDGE, (Status.SOLVED, Status.SOLVED, Status.UNSOLVED))
    assert verdict.agreement == pytest.approx(1 / 3)


def test_a_better_label_wins_and_is_not_compared() -> None:
    heard = Heard(judge(status=lambda question: "Solved" if "good" in question.prompt else "Unsolved"))
    verdicts = compare("fixed", heard, side("a", answered("1", "bad")), side("b", answered("1", "good")), ["1"])
    assert (verdicts["1"].outcome, verdicts["1"].basis) == ("win", Basis.LABELS)
    assert SELECT not in heard.names()


@pytest.mark.parametrize(("prefers", "outcome"), [("long", "win"), ("short", "lose")])
def test_equal_labels_are_compared_in_both_orders_and_names_are_not_shown(prefers: str, outcome: str) -> None:
    heard = Heard(judge(prefers=lambda question: int(question.prompt.index(prefers) > question.prompt.index("run_1"))))
    reference, candidate = side("alpha-system", answered("1", "short")), side("beta-system", answered("1", "long"))
    verdict = compare("fixed", heard, reference, candidate, ["1"], votes=2)["1"]
    assert verdict.outcome == outcome
    assert [vote.candidate_first for vote in verdict.votes] == [False, True, False, True]
    assert not any("alpha-system" in question.prompt for question in heard.questions)
    assert win_figures({"1": verdict})["order_agreement"] == 1.0


def test_a_missing_answer_loses_to_one_that_is_there() -> None:
    there, nothing = side("a", answered("1", "yes")), side("b")
    assert compare("fixed", judge(), there, nothing, ["1"])["1"].outcome == "lose"
    assert compare("fixed", judge(), nothing, there, ["1"])["1"].outcome == "win"


def test_a_judge_is_asked_anew_until_it_can_be_read_and_no_longer_than_three_times() -> None:
    said: list[Any] = []

    def garbled(question: Question, seed: int) -> dict[str, Any]:
        said.append(seed)
        return {"answer_status": "perhaps"}

    asking = asker(FunctionJudge("garbled", garbled))
    verdict = passed(asking, answered("1", "yes"))["1"]
    assert len(set(said)) == ATTEMPTS
    assert (verdict.votes, verdict.label, verdict.score) == ((None,), Status.UNSURE, 0.5)
    assert (asking.unreadable, pass_figures({"1": verdict})["unreadable"]) == (1, 1)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=4))
def test_whatever_a_judge_writes_is_read_or_is_nothing(value: Any) -> None:
    assert read_status({"answer_status": value}) in (None, *Status)
    assert read_index({"index": value}) is None or isinstance(read_index({"index": value}), int)


# ---- figures ------------------------------------------------------------------------------------------------------


def verdicts_of(*labels: Status) -> dict[str, PassVerdict]:
    return {str(number): PassVerdict(str(number), Basis.JUDGE, (label,)) for number, label in enumerate(labels)}


def test_differences_are_paired_so_equal_changes_have_no_spread() -> None:
    first = verdicts_of(Status.UNSOLVED, Status.UNSURE, Status.UNSOLVED)
    second = verdicts_of(Status.UNSURE, Status.SOLVED, Status.UNSURE)
    assert pass_difference(first, second) == {"value": 0.5, "ci95": [0.5, 0.5]}
    assert pass_figures(first)["pass_rate"]["ci95"] != [0.5, 0.5]


def test_an_average_counts_each_test_set_the_same_and_draws_within_them() -> None:
    average = average_rate([[1.0] * 90, [0.0] * 10])
    assert average == {"value": 0.5, "ci95": [0.5, 0.5]}
    low, high = average_rate([[0.0, 1.0] * 20, [1.0]])["ci95"]
    assert 0.5 < low < 0.75 < high < 1.0


# ---- replies ------------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_goes_on_and_costs_the_rest(tmp_path: Path) -> None:
    answers = [answered(str(number), f"answer {number}") for number in range(6)]
    whole = asker(judge())
    expected = passed(whole, *answers, votes=2)

    class Stopped(Exception):
        pass

    left = [5]

    def stops(question: Question) -> str:
        if not left[0]:
            raise Stopped
        left[0] -= 1
        return "Solved"

    with ReplyCache(tmp_path / "replies.sqlite") as cache, pytest.raises(Stopped):
        passed(asker(judge(status=stops), cache), *answers, votes=2)
    with ReplyCache(tmp_path / "replies.sqlite") as cache:
        assert len(cache) == 5
        again = asker(judge(), cache)
        assert passed(again, *answers, votes=2) == expected
    assert (again.spent.asked, again.cost.asked) == (7, 12)
    assert again.cost == whole.cost


def test_another_judge_vote_wording_or_seed_is_another_question(tmp_path: Path) -> None:
    with ReplyCache(tmp_path / "replies.sqlite") as cache:
        for one in (judge(), judge(name="other")):
            for seed in (0, 1):
                asking = asker(one, cache, seed)
                passed(asking, answered("1", "yes"), votes=2)
                assert asking.spent.asked == 2
        assert len(cache) == 8


def test_a_file_that_is_no_cache_is_told_plainly(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but longer than its header would be" * 40)
    with pytest.raises(UserError, match=r"notes\.txt.*give another file"):
        ReplyCache(path)


def test_the_estimate_bounds_what_is_then_sent_and_leaves_no_trace() -> None:
    reference = side("a", *(answered(str(n), f"old {n}") for n in range(5)))
    candidate = side("b", *(answered(str(n), f"new {n}") for n in range(4)))
    queries = [str(n) for n in range(5)]
    for status in ("Solved", "Unsolved", "Unsure"):
        with ReplyCache() as cache:
            asking = asker(judge(status=lambda question, said=status: said), cache)
            least, most = estimate(asking, lambda one: judge_win(one, reference, candidate, queries, 2))
            assert (asking.spent.asked, len(cache)) == (0, 0)
            asyncio.run(judge_win(asking, reference, candidate, queries, 2))
            assert least.spent.asked <= asking.spent.asked <= most.spent.asked
            assert most.spent.completion_tokens == most.spent.asked * REPLY_TOKENS
            again, _ = estimate(asking, lambda one: judge_win(one, reference, candidate, queries, 2))
            assert again.spent.asked == 0


# ---- what is read -------------------------------------------------------------------------------------------------


def test_a_trajectory_is_judged_as_the_same_run_in_toolevals_form() -> None:
    messages = (
        UserMessage("query 1?"),
        AssistantMessage(tool_calls=(ToolCall("c", "look_up", '{"key": "thing"}'),)),
        ToolMessage("c", "about thing"),
        AssistantMessage(content="yes"),
    )
    mine = answer_of(Trajectory((Tool.of("look_up", "Looks.", {}),), messages), "1")
    theirs = answered("1", "yes")
    assert (mine.query, mine.text, mine.finished) == (theirs.query, theirs.text, True)
    assert mine.calls == theirs.calls


def test_a_trajectory_of_thousands_of_calls_can_still_be_judged() -> None:
    turns: list[Any] = [UserMessage("go")]
    for number in range(3000):
        turns += [AssistantMessage(tool_calls=(ToolCall("c", "look_up", "{}"),)), ToolMessage("c", str(number))]
    answer = answer_of(Trajectory((), (*turns, AssistantMessage(content="done"))), "1")
    assert (answer.finished, answer.text) == (True, "done")
    assert passed(asker(judge(status=lambda question: "Unsure")), answer)["1"].label is Status.UNSURE


@pytest.mark.parametrize(("name", "answered_of_hundred"), [("G1_instruction", 64), ("G1_category", 69)])
def test_toolbenchs_first_result_files_whose_messages_are_texts_are_read(
    real_data: Path, name: str, answered_of_hundred: int
) -> None:
    answers = read_answers(real_data / "toolbench" / "tooleval_results" / "gpt-3.5-turbo_CoT" / f"{name}.json")
    heard = Heard(judge())
    verdicts = passed(asker(heard), *answers.values())
    assert sum(verdict.label is Status.SOLVED for verdict in verdicts.values()) == answered_of_hundred
    assert len(heard.questions) == answered_of_hundred


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ('{"7": {"query": "q"}}', r"query 7: answer"),
        ('{"7": {"query": "q", "answer": {"final_answer": 3, "answer_details": []}}}', r"answer\.final_answer"),
    ],
)
def test_a_file_that_is_not_answers_is_told_with_its_query(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_answers(path)


def test_ids_are_a_list_or_the_keys_of_an_object(tmp_path: Path) -> None:
    for content in ('["1", 2, "1"]', '{"1": 0, "2": 0}'):
        (tmp_path / "ids.json").write_text(content)
        assert read_ids(tmp_path / "ids.json") == ["1", "2"]


def test_templates_that_lack_a_function_or_a_field_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("completions_kwargs: {functions: [{name: check_answer_status}]}")
    (tmp_path / "template.txt").write_text(
        "<function><name>check_answer_status</name><description>{query}</description></function>"
    )
    with pytest.raises(DataError, match=r"lacks \{answer\}"):
        load_templates(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        load_templates(tmp_path / "nowhere")


# ---- without a judge ----------------------------------------------------------------------------------------------


def test_toolworld_itself_says_what_a_run_of_it_is_worth() -> None:
    for task in make_tasks("I2-Inst", 12):
        trajectory = solve(task)
        right = answer_of(trajectory, task.id)
        silent = answer_of(Trajectory(trajectory.tools, trajectory.messages[:-1]), task.id)
        assert replayed_in_toolworld(right) is True
        assert replayed_in_toolworld(silent) is False
        assert replayed_in_toolworld(answer_of(trajectory, "other-0-1")) is None


def test_what_a_live_evaluation_leaves_is_read_with_its_checkers_verdicts(tmp_path: Path) -> None:
    episodes = []
    for number, task in enumerate(make_tasks("I1-Inst", 4)):
        solved, trajectory = number % 2 == 0, solve(task)
        left = trajectory if solved else Trajectory(trajectory.tools, trajectory.messages[:-1])
        verdict: dict[str, Any] = {"split": task.split, "kind": task.kind, "solved": solved, "reason": ""}
        effort = dict.fromkeys(("steps", "calls", "prefill_tokens", "generated_tokens"), 1)
        episodes.append(
            EpisodeResult(task.id, trajectory=left, instruction=task.instruction, stop_reason="", **verdict, **effort)
        )
    scored_episodes(tmp_path, "I1-Inst", React(), lambda trace: episodes)
    (tmp_path / "live-I1-Inst.json").write_text("{}")  # figures, which are no answers
    answers = read_sets(tmp_path)["I1-Inst"]
    assert [answer.solved for answer in answers.values()] == [True, False, True, False]
    recorded, replayed = (open_checker(name) for name in ("recorded", "toolworld"))
    assert check_answers(recorded, "a", answers, list(answers)) == check_answers(replayed, "a", answers, list(answers))


def test_facts_are_found_in_any_of_their_wordings_and_only_whole(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text('{"facts": {"1": [["84 EUR", "84 euros"], "Tamiro"]}}')
    checker = open_checker(str(tmp_path / "truth.json"))
    for text, solved in (("Tamiro costs 84 euros.", True), ("Tamiro costs 184 EUR.", False), ("84 EUR", False)):
        verdicts = check_answers(checker, "a", {"1": answered("1", text)}, ["1", "2"])
        assert [verdict.label is Status.SOLVED for verdict in verdicts.values()] == [solved, False]
    with pytest.raises(UserError, match="knows nothing of query 3"):
        check_answers(checker, "a", {"3": answered("3", "x")}, ["3"])
    with pytest.raises(UserError, match="give recorded, toolworld"):
        open_checker("oracle")


# ---- the documentation --------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs" / "judging.md"


def test_the_docs_examples_run() -> None:
    runner = doctest.DocTestRunner()
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL):
        runner.run(doctest.DocTestParser().get_doctest(block, {}, "docs", str(DOCS), 0))
    assert runner.summarize().failed == 0 and runner.tries > 5


def test_the_docs_have_a_row_for_every_defect_that_is_tested() -> None:
    tests = re.findall(r"^@both_modes\n", (DOCS.parents[1] / "tests/judges/test_defects.py").read_text(), re.MULTILINE)
    section = DOCS.read_text(encoding="utf-8").split("## What is wrong")[1].split("##")[0]
    assert len(re.findall(r"^\| (?!defect)[^-]", section, re.MULTILINE)) == len(tests) >= 6
