"""Decides whether an episode solved its task: the right facts said, the right state left behind."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alpha_umi.toolworld.oracle import solution
from alpha_umi.toolworld.tasks import Task
from alpha_umi.toolworld.world import World


@dataclass(frozen=True)
class Outcome:
    """How an episode ended.

    Attributes:
        answer: What the user was told, or None if there was no answer.
        gave_up: Whether the agent gave up; ``answer`` doesn't count then.
    """

    answer: str | None
    gave_up: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether the task was solved, and in words why not."""

    solved: bool
    reason: str


def check(task: Task, world: World, outcome: Outcome) -> Verdict:
    """Compares an episode with what the oracle does in a world of its own.

    Args:
        task: The task.
        world: The world as the episode left it.
        outcome: How the episode ended.
    """
    expected = solution(task)
    if world.state() != expected.state:
        return Verdict(False, "the world's state differs from the one a right solution leaves")
    if outcome.gave_up:
        return Verdict(
            expected.gave_up, "gave up rightly" if expected.gave_up else "gave up on a task that can be done"
        )
    if outcome.answer is None:
        return Verdict(False, "no answer")
    if expected.gave_up:
        return Verdict(False, "answered where only giving up is right")
    for wordings in expected.facts:
        if not any(contains(outcome.answer, wording) for wording in wordings):
            return Verdict(False, f"the answer lacks {wordings[0]!r}")
    return Verdict(True, "every fact is in the answer")


def contains(text: str, fact: str) -> bool:
    """Whether a fact stands in a text as a whole: not ``84`` in ``1842``, ``84.5`` or ``BK-84``; in any case."""
    pattern = re.escape(_normal(fact))
    return re.search(rf"(?<!\w)(?<!\w-)(?<!\d[.,:]){pattern}(?!\w)(?![.,:]\d)(?!-\w)", _normal(text)) is not None


def _normal(text: str) -> str:
    return " ".join(text.split()).lower()
