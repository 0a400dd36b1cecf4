"""Pass: does an answer solve its query? The answer's text first; if that doesn't tell, the whole run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alpha_umi.judges.answers import FINISH, GIVE_UP, Answer, Answers
from alpha_umi.judges.asking import Asker
from alpha_umi.judges.questions import CHECK_ANSWER, CHECK_RUN, FunctionName, Reason
from alpha_umi.judges.verdicts import Basis, Mode, PassVerdict, Status, read_status

OnDone = Callable[[], None]
"""Called after each verdict."""

Progress = Callable[[str, int], OnDone]
"""Told what is begun and how many verdicts it will have; says who is to be told of each."""

PassVerdicts = Mapping[str, PassVerdict]
"""Verdicts on one system's answers, by query id."""


def quietly(name: str, total: int) -> OnDone:
    """Progress that nobody is told of."""
    return lambda: None


async def judge_pass(
    asker: Asker,
    system: str,
    answers: Answers,
    ids: Sequence[str],
    mode: Mode,
    votes: int,
    on_done: OnDone = lambda: None,
) -> dict[str, PassVerdict]:
    """Judges one system's answers.

    Args:
        asker: Whom to ask.
        system: The system's name; the judge isn't told.
        answers: Its answers.
        ids: The queries of the test set.
        mode: `fixed` has a verdict for every id, `compat` for those with an answer.
        votes: Judgements an answer.
        on_done: Called after each verdict.
    """
    judged = {name: answers.get(name) for name in ids}
    if mode is Mode.COMPAT:
        wanted = set(ids)
        judged = {name: answer for name, answer in answers.items() if name in wanted}

    async def one(name: str, answer: Answer | None) -> PassVerdict:
        basis = _ruled(answer, mode)
        if answer is None or basis is not Basis.JUDGE:
            verdict = PassVerdict(name, basis, (Status.UNSOLVED,) * votes)
        else:
            look = _published_vote if mode is Mode.COMPAT else _vote
            found = await asyncio.gather(*(look(asker, answer, (name, system), vote) for vote in range(votes)))
            verdict = PassVerdict(name, basis, tuple(s for s, _ in found), tuple(reason for _, reason in found))
        on_done()
        return verdict

    verdicts = await asyncio.gather(*(one(name, answer) for name, answer in judged.items()))
    return {verdict.query_id: verdict for verdict in verdicts}


def _ruled(answer: Answer | None, mode: Mode) -> Basis:
    """What is Unsolved without a judge."""
    if answer is None:
        return Basis.MISSING
    if mode is Mode.COMPAT:
        return _published_rule(answer)
    if not answer.finished:
        return Basis.UNFINISHED
    return Basis.JUDGE if answer.text is not None else Basis.NO_ANSWER


def _published_rule(answer: Answer) -> Basis:
    """The same by substrings, as published: a reply that quotes ``Finish``, or an answer that quotes the other word."""
    if f"'name': '{FINISH}'" not in published_steps(answer)[1]:
        return Basis.UNFINISHED
    return Basis.NO_ANSWER if published_empty(answer.final_answer) else Basis.JUDGE


def published_empty(final_answer: str) -> bool:
    """Whether an answer counts as empty, as published."""
    return final_answer == "" or GIVE_UP in final_answer


def published_steps(answer: Answer) -> tuple[str, str]:
    """The calls as one text, and the last of them, in the words of the published result files."""
    calls = answer.calls
    steps = "\n".join(f"Step {number}: {call}" for number, call in enumerate(calls, 1))
    return steps, f"Final step: {calls[-1]}" if calls else ""


def run_text(answer: Answer) -> str:
    """A run as the judge reads it: what the user was told, and the nodes after the query; nothing says whose it is."""
    nodes = [{key: value for key, value in node.items() if key != "next"} for node in answer.nodes]
    shown = [node for node in nodes if node.get("role") not in ("system", "user")]
    return json.dumps({"final_answer": answer.text, "answer_details": shown}, ensure_ascii=False)


async def _vote(asker: Asker, answer: Answer, subject: tuple[str, ...], vote: int) -> tuple[Status | None, str]:
    status, reason = await _label(asker, CHECK_ANSWER, answer.query, answer.text or "", subject, vote, "first")
    if status is not Status.UNSURE:
        return status, reason
    return await _label(asker, CHECK_RUN, answer.query, run_text(answer), subject, vote, "first")


async def _published_vote(
    asker: Asker, answer: Answer, subject: tuple[str, ...], vote: int
) -> tuple[Status | None, str]:
    return await published_status(asker, answer.query, answer.record, subject, vote, "last")


async def published_status(
    asker: Asker, query: str, record: Mapping[str, Any], subject: tuple[str, ...], vote: int, reason: Reason
) -> tuple[Status | None, str]:
    """One judgement of an ``answer`` object, as published; the second look shows all of it, ``method`` included."""
    if published_empty(record["final_answer"]):
        return Status.UNSOLVED, "Empty final answer!"
    status, said = await _label(asker, CHECK_ANSWER, query, record["final_answer"], subject, vote, reason)
    if status is not Status.UNSURE:
        return status, said
    return await _label(asker, CHECK_RUN, query, json.dumps(record), subject, vote, reason)


async def _label(
    asker: Asker, name: FunctionName, query: str, answer: str, subject: tuple[str, ...], vote: int, reason: Reason
) -> tuple[Status | None, str]:
    values = {"query": query, "answer": answer}
    return await asker.ask(asker.templates.ask(name, values, subject, vote, reason), read_status)
