"""The oracle: solves a task by calling its world, and says at each step why.

Its policy is what the instructions ask for: a time-out, a server error or an unavailable service is tried once more;
what fails for good, or is not authorised, is replaced by a tool that says it does the same, or given up; an empty
result and an unknown id are reported; a missing parameter is asked for before anything is called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alpha_umi.errors import ToolError
from alpha_umi.toolworld import wording
from alpha_umi.toolworld.catalogue import Api, load_catalogue
from alpha_umi.toolworld.grammar import spoken
from alpha_umi.toolworld.tasks import TRANSIENT, Ref, Step, Task
from alpha_umi.toolworld.world import World, fault_text
from alpha_umi.trajectory import AssistantMessage, Message, ToolCall, ToolMessage, Trajectory, UserMessage


@dataclass(frozen=True)
class Solution:
    """What the oracle did.

    Attributes:
        trajectory: The annotated conversation.
        facts: What a right answer contains; of each entry one wording is enough.
        state: The world's state at the end.
        gave_up: Whether giving up was right.
    """

    trajectory: Trajectory
    facts: tuple[tuple[str, ...], ...]
    state: Mapping[str, list[str]]
    gave_up: bool


def solve(task: Task) -> Trajectory:
    """The oracle's annotated trajectory; the same bytes for the same task."""
    return solution(task).trajectory


def solution(task: Task) -> Solution:
    """Solves a task in a fresh world."""
    return _Run(task).finish()


class _GaveUp(Exception):
    """The run ended with a refusal."""


@dataclass
class _Call:
    api: Api
    arguments: dict[str, Any]
    observation: dict[str, Any] = field(default_factory=dict)
    fault: ToolError | None = None


class _Run:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._world = World(task)
        self._apis = load_catalogue().apis
        self._messages: list[Message] = [UserMessage(task.instruction)]
        self._done: dict[int, _Call] = {}
        self._count = 0

    def finish(self) -> Solution:
        facts: tuple[tuple[str, ...], ...] = ()
        gave_up = False
        try:
            if self._task.missing is not None:
                facts = self._ask()
            elif self._task.kind == "impossible":
                self._give_up(*wording.impossible(self._wish(0, {}), self._opening(0)))
            else:
                facts = self._work()
        except _GaveUp:
            gave_up = True
        task = self._task
        extra = {"toolworld": {"split": task.split, "kind": task.kind, "seed": task.seed}}
        trajectory = Trajectory(task.tools, tuple(self._messages), task.id, extra)
        return Solution(trajectory, facts, self._world.state(), gave_up)

    def _wish(self, step: int, arguments: Mapping[str, Any]) -> wording.Wish:
        return wording.Wish(self._apis[self._task.steps[step].tool], self._task.requests[step], arguments)

    def _opening(self, turn: int) -> str:
        return wording.opening(turn, len({step.turn for step in self._task.steps}))

    def _ask(self) -> tuple[tuple[str, ...], ...]:
        name = self._task.missing or ""
        for number, step in enumerate(self._task.steps):
            api = self._apis[step.tool]
            lacking = [param for param in api.params if param.name == name and param.required]
            if lacking and name not in step.arguments:
                given = {n: v for n, v in step.arguments.items() if not isinstance(v, Ref)}
                wish, opens = self._wish(number, given), self._opening(step.turn)
                rationale, question = wording.missing(wish, lacking[0].field, opens)
                self._messages.append(AssistantMessage(rationale, content=question))
                return ((name, name.replace("_", " "), lacking[0].field.words),)
        raise ValueError(f"task {self._task.id}: no step lacks {name!r}")

    def _give_up(self, rationale: str, refusal: str) -> None:
        self._messages.append(AssistantMessage(rationale, refusal=refusal))
        raise _GaveUp

    def _work(self) -> tuple[tuple[str, ...], ...]:
        last: list[_Call] = []
        for turn in sorted({step.turn for step in self._task.steps}):
            steps = {i: step for i, step in enumerate(self._task.steps) if step.turn == turn}
            if not all(self._can_start(step) for step in steps.values()):
                break
            calls = {i: _Call(self._apis[s.tool], self._resolved(s)) for i, s in steps.items()}
            wishes = [self._wish(number, call.arguments) for number, call in calls.items()]
            said = f"{self._said(last)} " if last else ""
            self._turn(list(calls.values()), said + wording.plan(wishes, self._opening(turn)))
            last = [self._recovered(call) for call in calls.values()]
            self._done |= dict(zip(calls, last, strict=True))
        answers = [wording.answer(c.api, c.arguments, c.observation) for c in self._done.values()]
        rationale = self._said(last) + wording.finished(any(wording.is_empty(call.observation) for call in last))
        self._messages.append(AssistantMessage(rationale, content=" ".join(answers)))
        return tuple(fact for call in self._done.values() for fact in _facts(call))

    def _can_start(self, step: Step) -> bool:
        sources = [value.step for value in step.arguments.values() if isinstance(value, Ref)]
        return all(not wording.is_empty(self._done[source].observation) for source in sources)

    def _resolved(self, step: Step) -> dict[str, Any]:
        return {n: self._result(v) if isinstance(v, Ref) else v for n, v in step.arguments.items()}

    def _result(self, ref: Ref) -> Any:
        observation = self._done[ref.step].observation
        return observation["results"][0] if "results" in observation else observation[ref.field]

    def _said(self, calls: Sequence[_Call]) -> str:
        return wording.outcome([(call.api, call.observation) for call in calls])

    def _turn(self, calls: Sequence[_Call], rationale: str) -> None:
        made = []
        for call in calls:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            made.append(ToolCall(f"call_{self._count}", call.api.name, arguments))
            self._count += 1
        self._messages.append(AssistantMessage(rationale, tuple(made)))
        for call, sent in zip(calls, made, strict=True):
            try:
                text, call.fault = self._world.call(call.api.name, call.arguments), None
            except ToolError as error:
                text, call.fault = fault_text(error), error
            call.observation = json.loads(text)
            self._messages.append(ToolMessage(sent.id, text))

    def _recovered(self, call: _Call) -> _Call:
        """The call, tried again or replaced until it has a result.

        Raises:
            _GaveUp: Nothing helped.
        """
        if call.fault is None:
            return call
        if call.fault.kind in TRANSIENT:
            self._turn([call], wording.retry(call.api, call.arguments, call.fault.kind))
            if call.fault is None:
                return call
        kind = call.fault.kind
        other = load_catalogue().mirrors.get(call.api.name)
        if other is None or other.name not in {tool.name for tool in self._task.tools}:
            self._give_up(*wording.blocked(call.api, kind))
            raise AssertionError("unreachable")
        replacement = _Call(other, call.arguments)
        self._turn([replacement], wording.alternative(call.api, other, call.arguments, kind))
        if replacement.fault is not None:
            self._give_up(*wording.blocked(other, replacement.fault.kind))
        return replacement


def _facts(call: _Call) -> list[tuple[str, ...]]:
    """What the answer has to contain of a call's result."""
    if wording.is_empty(call.observation):
        key = next(iter(call.arguments.values()))
        return [(spoken(key),), wording.NEGATIONS]
    if "results" in call.observation:
        return [_wordings(value) for value in call.observation["results"]]
    said = wording.slots(call.api.answer)
    return [_wordings(value) for name, value in call.observation.items() if name in said]


def _wordings(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool):
        return (spoken(value),)
    if isinstance(value, (int, float)):
        shorter = [f"{value:.1f}"] if value == round(value, 1) else []
        return tuple(dict.fromkeys([str(value), f"{value:,}", f"{value:.2f}", *shorter]))
    return (str(value),)
