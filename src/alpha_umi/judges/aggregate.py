"""Figures of verdicts: rates with intervals over queries, differences between systems on the same queries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alpha_umi.evaluation.statistics import bootstrap_mean
from alpha_umi.judges.passing import PassVerdicts
from alpha_umi.judges.resampling import percentile_interval, resampled
from alpha_umi.judges.verdicts import VALUE, Basis, Status, WinVerdict

PublishedVotes = Mapping[str, Mapping[int, str]]
"""By query id, the round and the label as published files write it: ``AnswerStatus.Solved``."""

PublishedWins = Mapping[str, tuple[int, int]]
"""By query id, the rounds that the reference and the candidate won."""


def rate(values: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """The mean of one value a query with its 95 % bootstrap interval: ``value`` and ``ci95``.

    Raises:
        ValueError: There is none.
    """
    return {"value": math.fsum(values) / len(values), "ci95": list(bootstrap_mean(values, seed=seed))}


def grouped_rate(values: Sequence[tuple[str, float]], seed: int = 0) -> dict[str, Any] | None:
    """The same of several values a query, named by it; queries are drawn whole. None if there are no values."""
    if not values:
        return None
    numbers, names = [value for _, value in values], [name for name, _ in values]
    return {"value": math.fsum(numbers) / len(numbers), "ci95": list(bootstrap_mean(numbers, names, seed=seed))}


def average_rate(values: Sequence[Sequence[float]], seed: int = 0) -> dict[str, Any]:
    """The mean over test sets of their rates, each set counting the same; queries are drawn within their sets."""
    columns = [np.array(one, dtype=np.float64)[:, None] for one in values]
    generator = np.random.default_rng(seed)
    means = np.mean([resampled(column, generator)[:, 0] / len(column) for column in columns], axis=0)
    interval = percentile_interval(means)
    average = math.fsum(float(column.mean()) for column in columns) / len(columns)
    return {"value": average, "ci95": None if interval is None else list(interval)}


def pass_figures(verdicts: PassVerdicts, seed: int = 0) -> dict[str, Any]:
    """The pass rate over all verdicts, how many rest on what, and how far the judge agrees with itself."""
    found = list(verdicts.values())
    votes = [vote for verdict in found for vote in verdict.votes]
    return {
        "pass_rate": rate([verdict.score for verdict in found], seed),
        "queries": len(found),
        "labels": {status: sum(verdict.label is status for verdict in found) for status in Status},
        "basis": dict(Counter(str(verdict.basis) for verdict in found).most_common()),
        "agreement": mean_or_none([verdict.agreement for verdict in found]),
        "unreadable": votes.count(None),
    }


def pass_difference(first: PassVerdicts, second: PassVerdicts, seed: int = 0) -> dict[str, Any]:
    """How much more the second passes, on the queries that both have verdicts on: a paired interval."""
    both = [name for name in first if name in second]
    return rate([second[name].score - first[name].score for name in both], seed)


def win_figures(verdicts: Mapping[str, WinVerdict], seed: int = 0) -> dict[str, Any]:
    """Shares of queries won, tied and lost; the preference (ties count a half); how the order sways the judge."""
    found = list(verdicts.values())
    votes = [vote for verdict in found for vote in verdict.votes]
    first = [(v.query_id, vote.first_wins) for v in found if v.basis is Basis.JUDGE for vote in v.votes]
    decided = [(name, float(wins)) for name, wins in first if wins is not None]

    def share(of: Callable[[WinVerdict], float]) -> dict[str, Any]:
        return rate([of(verdict) for verdict in found], seed)

    return {
        "win_rate": share(lambda verdict: verdict.outcome == "win"),
        "tie_rate": share(lambda verdict: verdict.outcome == "tie"),
        "lose_rate": share(lambda verdict: verdict.outcome == "lose"),
        "preference": share(lambda verdict: verdict.score),
        "queries": len(found),
        "basis": dict(Counter(str(verdict.basis) for verdict in found).most_common()),
        "first_shown_wins": grouped_rate(decided, seed),
        "order_agreement": mean_or_none([_orders_agree(verdict) for verdict in found]),
        "unreadable": sum(vote.share is None for vote in votes),
    }


def _orders_agree(verdict: WinVerdict) -> float | None:
    """The share of votes that say the same in both orders."""
    pairs = list(zip(verdict.votes[::2], verdict.votes[1::2], strict=False))
    agree = [float(a.share == b.share) for a, b in pairs if a.share is not None and b.share is not None]
    return math.fsum(agree) / len(agree) if agree else None


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """The mean of what there is; None if there is nothing."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


# ---- as published -------------------------------------------------------------------------------------------------


def published_votes(verdicts: PassVerdicts) -> dict[str, dict[int, str]]:
    """Votes as published files write them; a vote that couldn't be read is left out."""
    return {
        name: {number: f"AnswerStatus.{vote}" for number, vote in enumerate(verdict.votes) if vote is not None}
        for name, verdict in verdicts.items()
    }


def published_pass_figures(votes: PublishedVotes, rounds: int) -> dict[str, Any]:
    """The mean over rounds of the share solved among the answered queries, and its standard deviation over rounds.

    Raises:
        ValueError: No query is answered.
    """
    if not votes:
        raise ValueError("no query is answered; the published rate is over answered queries only")
    values = {f"AnswerStatus.{status}": VALUE[status] for status in Status}
    scores = [
        sum(values.get(labels.get(number, ""), 0.0) for labels in votes.values()) / len(votes)
        for number in range(rounds)
    ]
    return {"pass_rate": sum(scores) / rounds, "std": float(np.std(scores)), "queries": len(votes)}


def published_wins(verdicts: Mapping[str, WinVerdict]) -> dict[str, tuple[int, int]]:
    """The rounds that the reference and the candidate won."""
    return {
        name: (sum(vote.share == 0.0 for vote in verdict.votes), sum(vote.share == 1.0 for vote in verdict.votes))
        for name, verdict in verdicts.items()
    }


def published_win_figures(wins: PublishedWins) -> dict[str, Any]:
    """The candidate's shares of queries with more rounds won, fewer, and as many.

    Raises:
        ValueError: There is no query.
    """
    if not wins:
        raise ValueError("no query was compared")
    outcomes = Counter((theirs > own) - (theirs < own) for own, theirs in wins.values())
    rates = {"win_rate": outcomes[1], "tie_rate": outcomes[0], "lose_rate": outcomes[-1]}
    return {**{name: count / len(wins) for name, count in rates.items()}, "queries": len(wins)}
