"""Runs to be judged, and judges whose every answer a test decides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from alpha_umi.judges.answers import Answer, Answers
from alpha_umi.judges.asking import Asker
from alpha_umi.judges.cache import ReplyCache
from alpha_umi.judges.judge import FunctionJudge
from alpha_umi.judges.questions import CHECK_ANSWER, CHECK_RUN, CHECK_TASK, SELECT, Question, load_templates
from alpha_umi.judges.winning import Side, judge_win, judge_win_as_published

Say = Callable[[Question], Any]


def call(name: str, response: str = "ok", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": json.dumps(arguments), "response": response}


def told(text: str, return_type: str = "give_answer") -> dict[str, Any]:
    return call("Finish", "", return_type=return_type, final_answer=text)


def run(query_id: str, *calls: Mapping[str, Any], final: str | None = None, method: str = "CoT@1") -> Answer:
    """A run in ToolEval's form; its final answer is what it called ``Finish`` with, unless told otherwise."""
    if final is None:
        final = calls[-1]["arguments"] if calls and calls[-1]["name"] == "Finish" else ""
    nested: list[dict[str, Any]] = []
    for message in reversed(calls):
        nested = [{"role": "tool", "message": dict(message), "next": nested}]
    for role in ("user", "system"):
        nested = [{"role": role, "message": "", "next": nested}]
    record = {"method": method, "total_steps": len(calls), "final_answer": final, "answer_details": nested}
    return Answer(query_id, f"query {query_id}?", ({"name": "look_up", "description": "Looks."},), record)


def answered(query_id: str, text: str, looked_up: str = "thing") -> Answer:
    return run(query_id, call("look_up", f"about {looked_up}", key=looked_up), told(text))


def side(name: str, *answers: Answer) -> Side:
    return name, {answer.query_id: answer for answer in answers}


def judge(
    status: Say = lambda question: "Solved",
    second_look: Say = lambda question: "Unsure",
    task: Say = lambda question: "Solvable",
    prefers: Say = lambda question: 0,
    name: str = "scripted",
) -> FunctionJudge:
    def answer(question: Question, seed: int) -> dict[str, Any]:
        says = {
            CHECK_ANSWER: ("answer_status", status), CHECK_RUN: ("answer_status", second_look),
            CHECK_TASK: ("task_status", task), SELECT: ("index", prefers),
        }  # fmt: skip
        field, say = says[question.name]
        return {"reason": "because", field: say(question)}

    return FunctionJudge(name, answer)


class Heard(FunctionJudge):
    """A judge that remembers what it was asked."""

    def __init__(self, inner: FunctionJudge) -> None:
        super().__init__(inner.name, self._answer)
        self.questions: list[Question] = []
        self._inner = inner

    def _answer(self, question: Question, seed: int) -> Any:
        self.questions.append(question)
        return self._inner.answer(question, seed)

    def names(self) -> list[str]:
        return [question.name for question in self.questions]


def asker(judge: FunctionJudge, cache: ReplyCache | None = None, seed: int = 0) -> Asker:
    return Asker(judge, load_templates(), cache, seed)


def ids(*answers: Answers) -> list[str]:
    return list(dict.fromkeys(name for one in answers for name in one))


def compare(
    mode: str, judge: FunctionJudge, reference: Side, candidate: Side, queries: list[str], votes: int = 1,
    seed: int | None = 0, **more: Any,
) -> Any:  # fmt: skip
    """Compares by one of the two procedures."""
    asking = asker(judge)
    if mode == "compat":
        return asyncio.run(judge_win_as_published(asking, reference, candidate, queries, votes, seed))
    return asyncio.run(judge_win(asking, reference, candidate, queries, votes, **more))
