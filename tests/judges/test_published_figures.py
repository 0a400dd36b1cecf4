"""`compat` on the example that StableToolBench ships: the same labels in, the same files and figures out."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpha_umi.judges.aggregate import (
    published_pass_figures,
    published_votes,
    published_win_figures,
    published_wins,
)
from alpha_umi.judges.answers import Answers, read_answers
from alpha_umi.judges.asking import Asker
from alpha_umi.judges.judge import FunctionJudge
from alpha_umi.judges.passing import judge_pass
from alpha_umi.judges.published import pass_results, read_pass_results, read_win_results, rounds_of, win_results
from alpha_umi.judges.questions import CHECK_ANSWER, SELECT, Question, Templates, load_templates
from alpha_umi.judges.verdicts import Mode
from alpha_umi.judges.winning import judge_win_as_published

COT, DFS = "virtual_chatgpt_cot", "virtual_chatgpt_dfs"


@pytest.fixture
def example(real_data: Path) -> Path:
    return real_data / "stabletoolbench" / "data_example"


@pytest.fixture
def templates(real_data: Path) -> Templates:
    return load_templates(real_data / "stabletoolbench" / "tooleval")


def answers(example: Path, system: str) -> Answers:
    return read_answers(example / "model_predictions_converted" / system / "G1_instruction.json")


def shipped_pass(example: Path, system: str) -> Path:
    return example / "pass_rate_results" / system / f"G1_instruction_{system}.json"


def shipped_win(example: Path, ending: str) -> Path:
    return example / "preference_results" / f"G1_instruction_{COT}_{DFS}.{ending}"


def saying_the_shipped_labels(votes: dict[str, dict[int, str]]) -> FunctionJudge:
    def answer(question: Question, seed: int) -> dict[str, Any]:
        assert question.name == CHECK_ANSWER
        label = votes[question.subject[0]][question.vote].removeprefix("AnswerStatus.")
        return {"answer_status": label, "reason": ""}

    return FunctionJudge("shipped", answer)


@pytest.mark.parametrize("system", [COT, DFS])
def test_the_shipped_labels_give_the_shipped_pass_file(example: Path, templates: Templates, system: str) -> None:
    path = shipped_pass(example, system)
    judged = answers(example, system)
    asking = Asker(saying_the_shipped_labels(read_pass_results(path)), templates)
    verdicts = asyncio.run(judge_pass(asking, system, judged, list(judged), Mode.COMPAT, 3))
    shipped = json.loads(path.read_text())
    made = pass_results(judged, verdicts)
    for one in (*shipped.values(), *made.values()):
        one["tool_names"] = str(one["tool_names"])  # the shipped file has lists and texts of lists
    assert made == shipped


@pytest.mark.parametrize(("system", "solved"), [(COT, 2), (DFS, 3)])
def test_the_shipped_pass_file_counts_as_its_script_counts_it(example: Path, system: str, solved: int) -> None:
    votes = read_pass_results(shipped_pass(example, system))
    figures = published_pass_figures(votes, rounds_of(votes))
    rounds = [[label == "AnswerStatus.Solved" for label in labels.values()] for labels in votes.values()]
    assert figures["pass_rate"] == pytest.approx(np.mean(rounds)) == pytest.approx(solved / 3)
    assert (figures["std"], figures["queries"]) == (0.0, 3)


def preferring_as_shipped(wins: dict[str, tuple[int, int]]) -> FunctionJudge:
    def answer(question: Question, seed: int) -> dict[str, Any]:
        if question.name != SELECT:
            return {"answer_status": "Solved"}
        query_id, *shown = question.subject
        winner = COT if question.vote < wins[query_id][0] else DFS
        return {"index": shown.index(winner), "reason": ""}

    return FunctionJudge("shipped", answer)


def test_the_shipped_preferences_give_the_shipped_files_and_figures(example: Path, templates: Templates) -> None:
    path = shipped_win(example, "json")
    shipped = read_win_results(path, COT, DFS)
    reference, candidate = ((system, answers(example, system)) for system in (COT, DFS))
    asking = Asker(preferring_as_shipped(shipped), templates)
    verdicts = asyncio.run(judge_win_as_published(asking, reference, candidate, list(shipped), 3))
    wins = published_wins(verdicts)
    assert win_results(wins, COT, DFS, 3) == json.loads(path.read_text())
    assert published_win_figures(wins) == {"win_rate": 1.0, "tie_rate": 0.0, "lose_rate": 0.0, "queries": 3}
    with open(shipped_win(example, "csv"), newline="") as file:
        labels = {row["query_id"]: row["preference_label"] for row in csv.DictReader(file, delimiter="\t")}
    assert labels == {name: "2" for name, verdict in verdicts.items() if verdict.outcome == "win"}


def test_the_published_words_and_schemas_are_sent_as_they_are(real_data: Path, templates: Templates) -> None:
    text = (real_data / "stabletoolbench" / "tooleval" / "template.txt").read_text()
    question = templates.ask(CHECK_ANSWER, {"query": "Q {answer}", "answer": "A"}, (), 0, "last")
    start = text.index("<description>") + len("<description>")
    published = text[start : text.index("</description>")]
    assert question.prompt == published.format(query="Q {answer}", answer="A")
    assert list(question.schema["parameters"]["properties"]) == ["answer_status", "reason"]
    assert question.schema["parameters"]["required"] == ["answer_status", "reason"]


def test_rates_are_over_rounds_with_unsure_as_a_half_and_a_lost_vote_as_nothing() -> None:
    votes = {"1": {0: "AnswerStatus.Solved", 1: "AnswerStatus.Unsure"}, "2": {0: "AnswerStatus.Unsolved"}}
    figures = published_pass_figures(votes, 2)
    assert figures["pass_rate"] == pytest.approx(np.mean([0.5, 0.25]))
    assert figures["std"] == pytest.approx(np.std([0.5, 0.25]))


def test_a_vote_of_the_published_procedure_is_as_many_questions_as_published(templates: Templates) -> None:
    votes = {name: {0: "AnswerStatus.Solved"} for name in ("1", "2")}
    verdicts = asyncio.run(
        judge_pass(Asker(saying_the_shipped_labels(votes), templates), "a", {}, ["1", "2"], Mode.COMPAT, 1)
    )
    assert published_votes(verdicts) == {}
    with pytest.raises(ValueError, match="answered"):
        published_pass_figures({}, 1)
