"""What a run is made of: the wishes of an episode, a step's result, and places to go back to."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alpha_umi.agent.episode import Position
from alpha_umi.agent.limits import StopReason
from alpha_umi.engines.base import Generation, Request, Sampling
from alpha_umi.tools import Observation
from alpha_umi.trajectory import AssistantMessage, Decision, Message, ToolCall, ToolMessage

_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class Speak:
    """An episode wants a span."""

    request: Request
    sampling: Sampling


@dataclass(frozen=True)
class UseTools:
    """An episode wants tools called, each within ``timeout`` and all of them within ``seconds``."""

    calls: tuple[ToolCall, ...]
    timeout: float
    seconds: float


Wish = Speak | UseTools
Reply = Generation | Sequence[Observation]
Steps = Generator[Wish, Any, StopReason]


@dataclass(frozen=True)
class Variation:
    """How a step is to differ from one that was taken at the same place before.

    Attributes:
        number: Another one draws other tokens; 0 is as the run's sampling has it.
        temperature: At least this hot, if ``number`` is above 0.
        hint: Read by the roles in this step, as said by the user, and by nobody later.
        tried: Signatures of calls (see `Step`) that are not made again.
    """

    number: int = 0
    temperature: float = 0.0
    hint: str | None = None
    tried: frozenset[str] = frozenset()

    def sampling(self, base: Sampling) -> Sampling:
        """How its tokens are chosen."""
        if self.number == 0:
            return base
        seed = base.seed + self.number * _SEED_STRIDE
        return replace(base, temperature=max(base.temperature, self.temperature), seed=seed)


@dataclass(frozen=True)
class Step:
    """What one step came to.

    Attributes:
        ended: Why the path ends here, or None.
        signature: Equal for equal calls; None if no call was written.
        repeated: Its calls had been tried, so they were not made, and the turn has to be taken back.
        messages: What it added to the conversation.
    """

    ended: StopReason | None
    signature: str | None = None
    repeated: bool = False
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Place:
    """A place in a run that it can go back to.

    Attributes:
        step: Number of the step that led here, 0 before the first.
        depth: Planner decisions on the path.
        position: Of the conversation.
        tools: State of the tools that can go back.
        lasting: How many calls with lasting effects had been made.
        answer: The answer given there, if any.
        refusal: What the user is told instead, if the planner gave up there.
        logprob: Of the planner's decisions on the path, their natural log-probability.
        scored: How many tokens that is of.
    """

    step: int
    depth: int
    position: Position
    tools: object
    lasting: int
    answer: str | None
    refusal: str | None
    logprob: float
    scored: int

    @property
    def value(self) -> float:
        """Mean log-probability of a token that the planner chose on the path."""
        return self.logprob / max(self.scored, 1)


def signature_of(calls: Sequence[ToolCall]) -> str:
    """Equal for calls of the same tools with the same arguments, however these are spelt."""
    written = [
        [call.name, call.arguments if (parsed := call.parsed()) is None else parsed, call.malformed] for call in calls
    ]
    return json.dumps(written, sort_keys=True)


def attempt(step: Step) -> list[dict[str, str]]:
    """The calls of a step and what came of them, or that it gave up: for a prompt that shows what was tried."""
    results = {message.tool_call_id: message.content for message in step.messages if isinstance(message, ToolMessage)}
    shown: list[dict[str, str]] = []
    for message in step.messages:
        if isinstance(message, AssistantMessage):
            shown += [
                {"name": call.name, "arguments": call.arguments, "result": results.get(call.id, "")}
                for call in message.tool_calls
            ]
            if message.refusal is not None:
                shown.append({"name": Decision.GIVE_UP.value, "arguments": "", "result": message.refusal})
    return shown
