"""How an episode is searched for an answer: strategies over `Run.step`.

react       one path, step by step
dfsdt       depth first over a tree of paths (`alpha_umi.agent.dfsdt`)
best-of-n   several whole paths, of which the planner's own probability chooses (`alpha_umi.agent.best_of_n`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.agent.run import Run
from alpha_umi.agent.steps import Place, Steps

AT_ONCE = frozenset({
    StopReason.CALL_LIMIT, StopReason.TIME_LIMIT, StopReason.TOKEN_LIMIT, StopReason.CANCELLED, StopReason.CLIENT_CALLS
})  # fmt: skip
"""What ends a run on whatever branch it happens; anything else ends the path alone."""

ENDS_ITSELF = frozenset({StopReason.ANSWERED, StopReason.GAVE_UP})
"""Ends that the planner decided on."""

HANDED_BACK = frozenset({StopReason.CANCELLED, StopReason.CLIENT_CALLS})
"""Ends after which nothing is chosen any more: whoever started the run has it."""


class Strategy(Protocol):
    """How a run goes on after each step."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def scored(self) -> bool:
        """Whether the engine has to say how probable its spans are."""
        ...

    def limits(self) -> Limits:
        """What a run may take, unless somebody says otherwise."""
        ...

    def search(self, run: Run) -> Steps:
        """Works until there is an outcome; returns why it ended, the run being where that is."""
        ...


@dataclass(frozen=True)
class React:
    """One path: reason, act, observe, until an answer, a limit, or giving up (Yao et al., 2022)."""

    name: str = field(default="react", init=False)
    scored: bool = field(default=False, init=False)

    def limits(self) -> Limits:
        """The usual ones."""
        return Limits()

    def search(self, run: Run) -> Steps:
        """Takes steps until the path ends."""
        while True:
            step = yield from run.step()
            if step.ended is not None:
                return step.ended


@dataclass(frozen=True)
class Leaf:
    """Where a path ended, and why."""

    place: Place
    reason: StopReason


def go_to_best(
    run: Run, leaves: Sequence[Leaf], over_writes: bool, value: Callable[[Leaf], float]
) -> StopReason | None:
    """Ends a search at the leaf of the highest value that it can go to; of equal ones the first.

    Returns:
        Why the path ended there; None, and nothing is done, where no path ended by itself.
    """
    ended = [leaf for leaf in leaves if leaf.reason in ENDS_ITSELF and run.can_go_to(leaf.place, over_writes)]
    if not ended:
        return None
    best = max(ended, key=value)
    run.go_to(best.place)
    return best.reason


def failed(leaves: Sequence[Leaf]) -> StopReason:
    """Why a search failed whose every path did: for the reason they share, if they do."""
    reasons = {leaf.reason for leaf in leaves}
    return reasons.pop() if len(reasons) == 1 else StopReason.EXHAUSTED
