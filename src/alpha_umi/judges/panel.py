"""How far a judge can be trusted: its labels and preferences against what is known to be true.

Only what the judge was asked is measured; what rules decide (no answer, not finished) is counted apart. Unsure counts
as not solved. Preferences are asked in both orders, of pairs of different answers to one query; of those with one
solved and one unsolved answer it is known which is better.

Shapes: ``G`` queries, ``R`` resamples, 4 cells (told solved or not, times solved or not).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alpha_umi.errors import UserError
from alpha_umi.evaluation.statistics import Interval
from alpha_umi.judges.aggregate import grouped_rate, mean_or_none
from alpha_umi.judges.answers import Answer, Answers
from alpha_umi.judges.asking import Asker
from alpha_umi.judges.checkers import open_checker, truth_of
from alpha_umi.judges.passing import OnDone, Progress, judge_pass, quietly, run_text
from alpha_umi.judges.resampling import percentile_interval, resampled
from alpha_umi.judges.verdicts import Basis, Mode, PassVerdict, Preference, Status
from alpha_umi.judges.winning import preference_of


@dataclass(frozen=True)
class Known:
    """One system's answers, and which of them are known to be right.

    Attributes:
        system: Its name.
        answers: By query id.
        truth: Likewise; answers that it lacks are left out.
    """

    system: str
    answers: Answers
    truth: Mapping[str, bool]


@dataclass(frozen=True)
class Pair:
    """Two systems' answers to one query, the first in the place of the reference."""

    query_id: str
    names: tuple[str, str]
    answers: tuple[Answer, Answer]
    truth: tuple[bool, bool]


@dataclass(frozen=True)
class Confusion:
    """Labels against the truth, a query each row: told and solved, told and not, not told and solved, neither."""

    cells: NDArray[np.float64]

    @classmethod
    def of(cls, told: Sequence[tuple[str, bool, bool]]) -> Confusion:
        """Counts (query id, told solved, solved)."""
        rows: dict[str, NDArray[np.float64]] = {}
        for query_id, said, true in told:
            rows.setdefault(query_id, np.zeros(4))[2 * (not said) + (not true)] += 1
        return cls(np.stack(list(rows.values())))

    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond chance; None where chance alone agrees always."""
        value = float(_kappa(self.cells.sum(axis=0)[None])[0])
        return None if math.isnan(value) else value

    def kappa_interval(self, seed: int = 0) -> Interval | None:
        """Its 95 % percentile bootstrap interval over queries."""
        return percentile_interval(_kappa(resampled(self.cells, np.random.default_rng(seed))))


def _kappa(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappas of confusions (R, 4); NaN where chance alone agrees always."""
    share = cells / cells.sum(axis=1, keepdims=True)
    told, true = share[:, 0] + share[:, 1], share[:, 0] + share[:, 2]
    chance = told * true + (1 - told) * (1 - true)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (share[:, 0] + share[:, 3] - chance) / (1 - chance), np.nan)


def known_answers(
    truth: str, systems: Mapping[str, Mapping[str, Answers]], ids: Mapping[str, Sequence[str]]
) -> list[Known]:
    """What a checker knows of systems' answers by test set; of several sets, ids get their set's name in front.

    Raises:
        UserError: There is no such checker, or it knows nothing of any answer.
    """
    checker, found = open_checker(truth), []
    for system, sets in systems.items():
        answers: dict[str, Answer] = {}
        right: dict[str, bool] = {}
        for name in ids:
            prefix = f"{name}/" if len(ids) > 1 else ""
            for query, solved in truth_of(checker, system, sets[name]).items():
                answers[prefix + query], right[prefix + query] = sets[name][query], solved
        found.append(Known(system, answers, right))
    if not any(one.truth for one in found):
        raise UserError(f"{truth}: of none of the answers it is known whether they are right")
    return found


async def measure(
    asker: Asker, known: Sequence[Known], votes: int = 1, most_pairs: int = 200, seed: int = 0,
    progress: Progress = quietly,
) -> dict[str, Any]:  # fmt: skip
    """Measures a judge.

    Args:
        asker: The judge, in the words it will be used with.
        known: Systems whose answers are known to be right or wrong; preferences need two of them.
        votes: Judgements an answer.
        most_pairs: Pairs to compare, drawn if there are more.
        seed: Of the draw and the intervals.
        progress: Told how far it is.
    """
    labelled: list[tuple[str, PassVerdict, bool]] = []
    for one in known:
        on_done = progress(f"pass {one.system}", len(one.truth))
        verdicts = await judge_pass(asker, one.system, one.answers, list(one.truth), Mode.FIXED, votes, on_done)
        labelled += [(name, verdict, one.truth[name]) for name, verdict in verdicts.items()]
    pairs = pairs_of(known, most_pairs, seed)
    on_done = progress("win", len(pairs))
    compared = await asyncio.gather(*(_compared(asker, pair, on_done) for pair in pairs))
    return {
        "judge": asker.judge.name,
        "fingerprint": asker.judge.fingerprint,
        "wording": asker.templates.fingerprint,
        "pass": _label_figures([row for row in labelled if row[1].basis is Basis.JUDGE], seed),
        "rules": _label_figures([row for row in labelled if row[1].basis is not Basis.JUDGE], seed),
        "win": _pair_figures(pairs, compared, seed),
    }


def pairs_of(known: Sequence[Known], most: int, seed: int) -> list[Pair]:
    """Pairs of different answers to one query, at most so many of them, in a drawn order."""
    found = [
        Pair(name, (a.system, b.system), (a.answers[name], b.answers[name]), (a.truth[name], b.truth[name]))
        for a, b in itertools.combinations(known, 2)
        for name in a.truth
        if name in b.truth and run_text(a.answers[name]) != run_text(b.answers[name])
    ]
    random.Random(f"pairs {seed}").shuffle(found)
    return found[:most]


async def _compared(asker: Asker, pair: Pair, on_done: OnDone) -> tuple[Preference, Preference]:
    both = await asyncio.gather(
        *(preference_of(asker, pair.answers, pair.names, 0, candidate_first) for candidate_first in (False, True))
    )
    on_done()
    return both[0], both[1]


def _label_figures(labelled: Sequence[tuple[str, PassVerdict, bool]], seed: int) -> dict[str, Any] | None:
    if not labelled:
        return None
    told = [(name, verdict.label is Status.SOLVED, true) for name, verdict, true in labelled]
    confusion = Confusion.of(told)
    interval = confusion.kappa_interval(seed)
    kappa = {"value": confusion.kappa(), "ci95": None if interval is None else list(interval)}
    return {
        "accuracy": grouped_rate([(name, float(said == true)) for name, said, true in told], seed),
        "kappa": kappa,
        "sensitivity": grouped_rate([(name, float(said)) for name, said, true in told if true], seed),
        "specificity": grouped_rate([(name, float(not said)) for name, said, true in told if not true], seed),
        "items": len(labelled),
        "solved": sum(true for _, _, true in told),
        "unsure": sum(verdict.label is Status.UNSURE for _, verdict, _ in labelled),
        "agreement": mean_or_none([verdict.agreement for _, verdict, _ in labelled]),
        "unreadable": sum(vote is None for _, verdict, _ in labelled for vote in verdict.votes),
    }


def _pair_figures(
    pairs: Sequence[Pair], compared: Sequence[tuple[Preference, Preference]], seed: int
) -> dict[str, Any] | None:
    if not pairs:
        return None
    rows = list(zip(pairs, compared, strict=True))
    right = [
        (pair.query_id, vote.share if pair.truth[1] else 1 - vote.share)
        for pair, both in rows
        for vote in both
        if vote.share is not None and pair.truth[0] != pair.truth[1]
    ]
    first = [
        (pair.query_id, float(vote.first_wins)) for pair, both in rows for vote in both if vote.first_wins is not None
    ]
    same = [
        (pair.query_id, float(both[0].share == both[1].share))
        for pair, both in rows
        if both[0].share is not None and both[1].share is not None
    ]
    return {
        "accuracy": grouped_rate(right, seed),
        "first_shown_wins": grouped_rate(first, seed),
        "position_bias": grouped_rate([(name, value - 0.5) for name, value in first], seed),
        "order_agreement": grouped_rate(same, seed),
        "pairs": len(pairs),
        "known": sum(pair.truth[0] != pair.truth[1] for pair in pairs),
        "unreadable": sum(vote.share is None for both in compared for vote in both),
    }
