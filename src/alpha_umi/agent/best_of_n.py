"""Best of n: several whole paths, of which the planner's own probability chooses.

The first path is as the run's sampling has it, the others are sampled. Those that ended by themselves, with an answer
or by giving up, compete: the one whose planner was most certain wins, by the mean log-probability of the tokens that it
chose. What it can't do is to tell a certain mistake from a certain success.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from alpha_umi.agent.limits import Limits
from alpha_umi.agent.run import Run
from alpha_umi.agent.steps import Steps, Variation
from alpha_umi.agent.strategies import AT_ONCE, HANDED_BACK, Leaf, failed, go_to_best
from alpha_umi.errors import UserError


@dataclass(frozen=True)
class BestOfN:
    """Several paths from the start.

    Attributes:
        n: How many.
        temperature: Of all paths but the first, at least.
        over_writes: Begin again after calls that have lasting effects, too.
    """

    n: int = 4
    temperature: float = 0.7
    over_writes: bool = False
    name: str = field(default="best-of-n", init=False)
    scored: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"the search's n is {self.n}; it must be 1 or more")
        if not self.temperature > 0:
            raise UserError(f"the search's temperature is {self.temperature}; another path needs one above 0")

    def limits(self) -> Limits:
        """What one path may take, n times."""
        one = Limits()
        return Limits(calls=self.n * one.calls, seconds=self.n * one.seconds, tokens=self.n * one.tokens)

    def search(self, run: Run) -> Steps:
        """Takes the paths one after another; the run ends where the best one did."""
        start, leaves = run.here(), list[Leaf]()
        for number in range(self.n):
            if number:
                if not run.can_go_to(start, self.over_writes):
                    break
                run.branch(start)
            reason = yield from self._path(run, Variation(number, self.temperature))
            if reason in HANDED_BACK:
                return reason
            leaves.append(Leaf(run.here(), reason))
            if reason in AT_ONCE:
                break
        reason = leaves[-1].reason if leaves[-1].reason in AT_ONCE else failed(leaves)
        return go_to_best(run, leaves, self.over_writes, lambda leaf: leaf.place.value) or reason

    @staticmethod
    def _path(run: Run, variation: Variation) -> Steps:
        while True:
            step = yield from run.step(variation)
            if step.ended is not None:
                return step.ended
