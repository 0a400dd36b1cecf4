"""DFSDT, the depth-first search decision tree of ToolBench (Qin et al., 2023).

A node is a place in the conversation, its children are the steps that were tried there. The search goes down until a
path ends. After an answer or giving up it goes back two levels, after a path that may go no further one, and tries
another child there, up to ``width`` of them; the first answer ends it.

How a second child comes to differ from the first: its step is sampled (``temperature``), and calls that were tried at
the node are not made again but drawn anew; with ``prompt`` the roles are also shown what was tried, in the words of the
user, as ToolBench does for models that can read such a prompt. Ours has its own wording.

Other than in ToolBench: its depth counts thought, action and input apart, ours counts steps; it takes any giving-up
node at random where there is no answer, we take the first; it runs into errors where we end with a named reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.agent.run import Run
from alpha_umi.agent.steps import Place, Step, Steps, Variation, attempt
from alpha_umi.agent.strategies import AT_ONCE, ENDS_ITSELF, HANDED_BACK, Leaf, failed, go_to_best
from alpha_umi.errors import UserError

_HINT = """You have been at this point before, and what you did from here did not solve the task. This is what you \
tried, and what came of it:
{tried}
Think about why it failed, then do something else than any of these."""


@dataclass(frozen=True)
class Dfsdt:
    """Depth-first search with a budget.

    Attributes:
        width: Children of a node.
        decisions: Planner decisions on all branches together (ToolBench's model calls).
        back: Levels to go back after an answer or giving up.
        answers: How many to find; the first is the run's, the others are in its trace.
        temperature: Of the step that begins another branch, at least.
        redraws: How often such a step is drawn again if it only repeats tried calls.
        prompt: Show the roles what was tried.
        over_writes: Go back past calls that have lasting effects, too.
    """

    width: int = 2
    decisions: int = 60
    back: int = 2
    answers: int = 1
    temperature: float = 0.7
    redraws: int = 2
    prompt: bool = False
    over_writes: bool = False
    name: str = field(default="dfsdt", init=False)
    scored: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        for option in ("width", "decisions", "back", "answers"):
            if getattr(self, option) < 1:
                raise UserError(f"the search's {option} is {getattr(self, option)}; it must be 1 or more")
        if not self.temperature > 0:
            raise UserError(f"the search's temperature is {self.temperature}; another branch needs one above 0")

    def limits(self) -> Limits:
        """Five times what one path may take."""
        one = Limits()
        return Limits(calls=5 * one.calls, seconds=5 * one.seconds, tokens=5 * one.tokens)

    def search(self, run: Run) -> Steps:
        """Searches; the run ends at the first answer, else at the first place where the planner gave up."""
        return (yield from _Search(self, run).work())


@dataclass
class _Node:
    """A place, what was tried there, and how often the current child was drawn again."""

    place: Place
    tried: list[Step] = field(default_factory=list)
    drawn: int = 0

    @property
    def fresh(self) -> bool:
        return not self.tried and not self.drawn


class _Search:
    def __init__(self, plan: Dfsdt, run: Run) -> None:
        self._plan = plan
        self._run = run
        self._path = [_Node(run.here())]
        self._leaves: list[Leaf] = []

    def work(self) -> Steps:
        while self._path:
            node = self._path[-1]
            if not self._has_room(node):
                self._path.pop()
                continue
            if self._run.steps >= self._plan.decisions:
                return self._settle(StopReason.SEARCH_LIMIT)
            if not node.fresh:
                self._run.branch(node.place)
            step = yield from self._run.step(self._variation(node))
            if step.ended is not None and step.ended in AT_ONCE:
                return self._stopped(step.ended)
            self._grow(node, step)
            if sum(leaf.reason is StopReason.ANSWERED for leaf in self._leaves) >= self._plan.answers:
                break
        return self._settle(failed(self._leaves))

    def _has_room(self, node: _Node) -> bool:
        if len(node.tried) >= self._plan.width or node.drawn > self._plan.redraws:
            return False
        return node.fresh or self._run.can_go_to(node.place, self._plan.over_writes)

    def _grow(self, node: _Node, step: Step) -> None:
        """Goes down the new child, or back as far as its end asks for."""
        if step.repeated:
            self._run.go_to(node.place)
            node.drawn += 1
            return
        node.drawn = 0
        node.tried.append(step)
        if step.ended is None:
            self._path.append(_Node(self._run.here()))
            return
        self._leaves.append(Leaf(self._run.here(), step.ended))
        # a path that may go no further ends at this node, whatever else were tried at it
        back = self._plan.back - 1 if step.ended in ENDS_ITSELF else 1
        del self._path[max(len(self._path) - back, 0) :]

    def _variation(self, node: _Node) -> Variation:
        if node.fresh:
            return Variation()
        tried = frozenset(step.signature for step in node.tried if step.signature is not None)
        return Variation(self._run.branches, self._plan.temperature, self._hint(node), tried)

    def _hint(self, node: _Node) -> str | None:
        if not self._plan.prompt:
            return None
        tried = [one for step in node.tried for one in attempt(step)]
        return _HINT.format(tried=json.dumps(tried, ensure_ascii=False, indent=2)) if tried else None

    def _stopped(self, reason: StopReason) -> StopReason:
        """A limit of the run is reached: an answer that was found before still is one."""
        answers = [leaf for leaf in self._leaves if leaf.reason is StopReason.ANSWERED]
        if reason in HANDED_BACK:
            return reason
        return go_to_best(self._run, answers, self._plan.over_writes, lambda leaf: 0) or reason

    def _settle(self, reason: StopReason) -> StopReason:
        """The search itself is over: the first answer counts, else the first giving up."""
        return (
            go_to_best(self._run, self._leaves, self._plan.over_writes, lambda leaf: leaf.reason is StopReason.ANSWERED)
            or reason
        )
