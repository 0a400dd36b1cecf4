"""What judging comes to: labels of answers and preferences between two, with the votes they are made of."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from alpha_umi.judges.judge import Arguments


class Mode(StrEnum):
    """Which procedure."""

    FIXED = "fixed"
    """With the defects of the published one repaired."""
    COMPAT = "compat"
    """As published with StableToolBench, defects included, for figures that are to stand beside published ones."""


class Status(StrEnum):
    """Whether an answer solves its query; the values are ToolEval's words."""

    SOLVED = "Solved"
    UNSURE = "Unsure"
    UNSOLVED = "Unsolved"


VALUE: Mapping[Status, float] = {Status.SOLVED: 1.0, Status.UNSURE: 0.5, Status.UNSOLVED: 0.0}
"""What a label counts in the pass rate."""


class Basis(StrEnum):
    """What a verdict rests on."""

    JUDGE = "judge"
    """The judge was asked."""
    MISSING = "missing"
    """There is no answer to this query."""
    UNFINISHED = "unfinished"
    """The run's last call isn't ``Finish``."""
    NO_ANSWER = "no answer"
    """It gave up, or told the user nothing."""
    LABELS = "labels"
    """One answer is labelled better than the other."""
    IDENTICAL = "identical"
    """The two answers are the same."""
    CHECKER = "checker"
    """A program compared facts and state; no judge was asked."""


@dataclass(frozen=True)
class PassVerdict:
    """Whether one answer solves its query.

    Attributes:
        query_id: The query's name.
        basis: What it rests on.
        votes: One a judgement; None is a reply that could not be read.
        reasons: The judge's, one a vote.
    """

    query_id: str
    basis: Basis
    votes: tuple[Status | None, ...]
    reasons: tuple[str, ...] = ()

    @property
    def read(self) -> list[Status]:
        """The votes that could be read."""
        return [vote for vote in self.votes if vote is not None]

    @property
    def label(self) -> Status:
        """What most votes say; Unsure where none has most."""
        most = Counter(self.read).most_common(2)
        tied = not most or (len(most) > 1 and most[0][1] == most[1][1])
        return Status.UNSURE if tied else most[0][0]

    @property
    def score(self) -> float:
        """The mean value of the votes, in [0, 1]; a vote that couldn't be read counts as Unsure."""
        return math.fsum(0.5 if vote is None else VALUE[vote] for vote in self.votes) / len(self.votes)

    @property
    def agreement(self) -> float | None:
        """The share of pairs of votes that agree; None if the judge was not asked, or there are no two votes."""
        pairs = list(itertools.combinations(self.read, 2)) if self.basis is Basis.JUDGE else []
        return sum(a == b for a, b in pairs) / len(pairs) if pairs else None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "label": self.label, "score": self.score, "basis": self.basis, "votes": list(self.votes),
            "reasons": list(self.reasons),
        }  # fmt: skip

    @classmethod
    def from_json(cls, query_id: str, value: Mapping[str, Any]) -> PassVerdict:
        """Reads what ``to_json`` made.

        Raises:
            ValueError: It didn't.
        """
        try:
            votes = tuple(None if vote is None else Status(vote) for vote in value["votes"])
            return cls(query_id, Basis(value["basis"]), votes, tuple(value.get("reasons", ())))
        except (KeyError, TypeError) as error:
            raise ValueError(f"the verdict on {query_id} lacks {error}") from error


@dataclass(frozen=True)
class Preference:
    """One judgement of a pair.

    Attributes:
        share: The candidate's: 1 it is better, 0 the reference is, 0.5 neither; None: the reply could not be read.
        candidate_first: Whether the judge was shown the candidate first.
        reason: The judge's.
    """

    share: float | None
    candidate_first: bool = False
    reason: str = ""

    @property
    def first_wins(self) -> bool | None:
        """Whether the answer shown first was preferred; None if neither was."""
        return None if self.share is None or self.share == 0.5 else (self.share == 1.0) == self.candidate_first


@dataclass(frozen=True)
class WinVerdict:
    """Whether the candidate's answer is better than the reference's.

    Attributes:
        query_id: The query's name.
        basis: What it rests on.
        votes: One a judgement; of `fixed`, every two of them are the same pair in either order.
    """

    query_id: str
    basis: Basis
    votes: tuple[Preference, ...]

    @property
    def score(self) -> float:
        """The candidate's mean share, in [0, 1]; 0.5 where no vote could be read."""
        shares = [vote.share for vote in self.votes if vote.share is not None]
        return math.fsum(shares) / len(shares) if shares else 0.5

    @property
    def outcome(self) -> str:
        """``win``, ``lose`` or ``tie``, of the candidate."""
        return "tie" if self.score == 0.5 else "win" if self.score > 0.5 else "lose"

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        votes = [{"share": v.share, "candidate_first": v.candidate_first, "reason": v.reason} for v in self.votes]
        return {"outcome": self.outcome, "score": self.score, "basis": self.basis, "votes": votes}


def read_status(arguments: Arguments) -> Status | None:
    """The label in a reply."""
    value = arguments.get("answer_status")
    return Status(value) if isinstance(value, str) and value in set(Status) else None


def read_task_status(arguments: Arguments) -> str | None:
    """Whether the judge finds the task solvable."""
    value = arguments.get("task_status")
    return value if isinstance(value, str) else None


def read_index(arguments: Arguments) -> int | None:
    """The index in a reply; models write it as a number or as text."""
    try:
        return int(arguments.get("index"))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
