"""Win: which of two systems served the user better, query by query?"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from alpha_umi.judges.answers import Answer, Answers
from alpha_umi.judges.asking import Asker
from alpha_umi.judges.passing import OnDone, PassVerdicts, judge_pass, published_status, run_text
from alpha_umi.judges.questions import CHECK_TASK, NEITHER, SELECT
from alpha_umi.judges.verdicts import (
    VALUE,
    Basis,
    Mode,
    Preference,
    Status,
    WinVerdict,
    read_index,
    read_task_status,
)

Side = tuple[str, Answers]
"""A system: its name and its answers."""

_LONGEST_ANSWER = 1000  # characters that a published comparison keeps of a final answer


async def judge_win(
    asker: Asker, reference: Side, candidate: Side, ids: Sequence[str], votes: int,
    labels: tuple[PassVerdicts, PassVerdicts] | None = None, on_done: OnDone = lambda: None,
) -> dict[str, WinVerdict]:  # fmt: skip
    """Compares two systems' answers; the repaired procedure.

    The better label wins. Equal labels are compared by the judge, each vote in both orders, its halves averaged.

    Args:
        asker: Whom to ask.
        reference: The system that is compared with.
        candidate: The system that wins or loses.
        ids: The queries of the test set.
        votes: Judgements a pair, each in both orders, and judgements an answer where ``labels`` lack one.
        labels: Verdicts on the reference's and the candidate's answers; None has them judged now.
        on_done: Called after each verdict.
    """
    first, second = labels or await asyncio.gather(
        judge_pass(asker, *reference, ids, Mode.FIXED, votes), judge_pass(asker, *candidate, ids, Mode.FIXED, votes)
    )

    async def one(name: str) -> WinVerdict:
        verdict = _ruled(name, reference[1].get(name), candidate[1].get(name), first[name].label, second[name].label)
        if verdict is None:
            pair = (reference[1][name], candidate[1][name])
            names = (reference[0], candidate[0])
            found = await asyncio.gather(*(_both_orders(asker, pair, names, vote) for vote in range(votes)))
            verdict = WinVerdict(name, Basis.JUDGE, tuple(preference for both in found for preference in both))
        on_done()
        return verdict

    verdicts = await asyncio.gather(*(one(name) for name in ids))
    return {verdict.query_id: verdict for verdict in verdicts}


def _ruled(
    name: str, reference: Answer | None, candidate: Answer | None, first: Status, second: Status
) -> WinVerdict | None:
    """What needs no comparison."""
    if reference is None or candidate is None:
        share = 0.5 if reference is candidate else 0.0 if candidate is None else 1.0
        return WinVerdict(name, Basis.MISSING, (Preference(share),))
    if first is not second:
        return WinVerdict(name, Basis.LABELS, (Preference(1.0 if VALUE[second] > VALUE[first] else 0.0),))
    if run_text(reference) == run_text(candidate):
        return WinVerdict(name, Basis.IDENTICAL, (Preference(0.5),))
    return None


async def _both_orders(
    asker: Asker, pair: tuple[Answer, Answer], names: tuple[str, str], vote: int
) -> tuple[Preference, Preference]:
    return await asyncio.gather(
        preference_of(asker, pair, names, vote, False), preference_of(asker, pair, names, vote, True)
    )


async def preference_of(
    asker: Asker, pair: tuple[Answer, Answer], names: tuple[str, str], vote: int, candidate_first: bool
) -> Preference:
    """One comparison of a reference's with a candidate's answer, in one order."""
    shown = (pair[1], pair[0]) if candidate_first else pair
    order = (names[1], names[0]) if candidate_first else names
    values = {"query": pair[0].query, "answer_0": run_text(shown[0]), "answer_1": run_text(shown[1])}
    question = asker.templates.ask(SELECT, values, (pair[0].query_id, *order), vote)
    index, reason = await asker.ask(question, lambda said: _one_of(read_index(said), (0, 1, NEITHER)))
    share = None if index is None else 0.5 if index == NEITHER else float((index == 0) == candidate_first)
    return Preference(share, candidate_first, reason)


async def judge_win_as_published(
    asker: Asker, reference: Side, candidate: Side, ids: Sequence[str], votes: int,
    seed: int | None = None, on_done: OnDone = lambda: None,
) -> dict[str, WinVerdict]:  # fmt: skip
    """Compares two systems' answers as published, all habits included.

    Labels of an earlier pass are not among the arguments: what the published code reads from its own file never equals
    a label, so it judges every answer anew in every round.

    Args:
        asker: Whom to ask.
        reference: The system that is compared with.
        candidate: The system that wins or loses.
        ids: The queries of the test set.
        votes: Rounds.
        seed: Of the order in which answers are shown and of picks among equals; None draws anew, as published.
        on_done: Called after each verdict.
    """

    async def one(name: str) -> WinVerdict:
        if name not in reference[1] or name not in candidate[1]:
            share = (
                1.0 if name not in reference[1] else 0.0
            )  # the reference is looked for first: neither there, it loses
            verdict = WinVerdict(name, Basis.MISSING, (Preference(share),) * votes)
        else:
            pair, names = (reference[1][name], candidate[1][name]), (reference[0], candidate[0])
            rounds = (_published_round(asker, pair, names, vote, _generator(seed, name, vote)) for vote in range(votes))
            verdict = WinVerdict(name, Basis.JUDGE, tuple(await asyncio.gather(*rounds)))
        on_done()
        return verdict

    verdicts = await asyncio.gather(*(one(name) for name in ids))
    return {verdict.query_id: verdict for verdict in verdicts}


def _generator(seed: int | None, name: str, vote: int) -> random.Random:
    return random.Random() if seed is None else random.Random(f"{seed} {name} {vote}")


async def _published_round(
    asker: Asker, pair: tuple[Answer, Answer], names: tuple[str, str], vote: int, generator: random.Random
) -> Preference:
    order = [0, 1]
    generator.shuffle(order)
    query, query_id = pair[0].query, pair[0].query_id
    records = [_published_record(pair[side]) for side in order]
    subjects = [(query_id, names[side]) for side in order]
    statuses = [
        (await published_status(asker, query, record, subject, vote, "none"))[0]
        for record, subject in zip(records, subjects, strict=True)
    ]
    index, reason = await _published_choice(
        asker, pair[0], records, statuses, (query_id, *(names[side] for side in order)), vote, generator
    )
    share = None if index is None else float(order[index])
    return Preference(share, order[0] == 1, reason)


async def _published_choice(
    asker: Asker, asked: Answer, records: list[dict[str, Any]], statuses: list[Status | None],
    subject: tuple[str, ...], vote: int, generator: random.Random,
) -> tuple[int | None, str]:  # fmt: skip
    """The one solved answer, or where none is, the one unsure; otherwise what the judge picks."""
    for status in (Status.SOLVED, Status.UNSURE):
        having = [side for side, found in enumerate(statuses) if found is status]
        if len(having) == 1:
            return having[0], ""
        if having:
            break
    if Status.SOLVED not in statuses:  # nothing is done with what the judge says here
        task = {"query": asked.query, "available_tools": [_bare(tool) for tool in asked.tools]}
        question = asker.templates.ask(CHECK_TASK, {"task": json.dumps(task)}, subject, vote, "none")
        await asker.ask(question, read_task_status)
    if all(records[0][key] == records[1][key] for key in ("final_answer", "answer_details")):
        return generator.choice((0, 1)), ""
    values = {"query": asked.query, "answer_0": json.dumps(records[0]), "answer_1": json.dumps(records[1])}
    question = asker.templates.ask(SELECT, values, subject, vote, "last")
    return await asker.ask(question, lambda said: _one_of(read_index(said), (0, 1)))


def _published_record(answer: Answer) -> dict[str, Any]:
    record = {key: value for key, value in answer.record.items() if key != "method"}
    return {**record, "final_answer": answer.final_answer[:_LONGEST_ANSWER]}


def _bare(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tool.items() if key not in ("description", "parameters")}


def _one_of(index: int | None, allowed: Sequence[int]) -> int | None:
    return index if index in allowed else None
