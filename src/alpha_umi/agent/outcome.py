"""What a run tells: events while it goes on, and its outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from alpha_umi.agent.limits import StopReason
from alpha_umi.tools.execution import ReadyCall
from alpha_umi.trajectory import ToolCall, Trajectory
from alpha_umi.transcript import Transcript, Voice

EventKind = Literal["writing", "rationale", "decision", "call", "observation", "answer", "refusal", "branch", "stop"]


@dataclass(frozen=True)
class Event:
    """Something happened in an episode: for a live display.

    Attributes:
        kind: ``writing`` comes with every token of a span, if the engine has them one by one; the others when something
            is complete.
        text: What was said; of a span that is being written, all there is of it.
        session: Of the episode.
        voice: Who is writing.
    """

    kind: EventKind
    text: str
    session: int
    voice: Voice | None = None


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class MadeCall:
    """A call of the run and how it ended.

    Attributes:
        call: As the caller wrote it.
        error: Kind of its failure, or None.
        client: It was not made but handed out.
        executed: What was made in its place, or None if that was what the caller wrote.
    """

    call: ToolCall
    error: str | None
    client: bool = False
    executed: ReadyCall | None = None

    def to_json(self) -> dict[str, Any]:
        """Arguments as an object, or the text that was written if it is none; of a call handed out its id too."""
        arguments = self.call.parsed()
        made = {
            "name": self.call.name,
            "arguments": self.call.arguments if arguments is None else arguments,
            "error": self.error,
        }
        if self.executed is not None:
            made["executed"] = self.executed.to_json()
        return made | {"client": True, "id": self.call.id} if self.client else made


@dataclass(frozen=True)
class EpisodeOutcome:
    """How a run ended. What it took is counted over all branches, those that were given up included.

    Attributes:
        session: Of the episode.
        strategy: How it was searched for.
        stop_reason: Why it ended.
        answer: The summarizer's answer, if there is one.
        refusal: What the user is told instead, if the planner gave up.
        trajectory: The whole conversation; every call is answered, except in a last turn that was handed out.
        transcript: The same as tokens.
        steps: Planner decisions in this run.
        calls: Calls in this run, in the order they were made.
        prefill_tokens: Tokens the models read (computed, not taken from a cache).
        generated_tokens: Tokens the models wrote.
        undecided: Planner spans without a decision (they count as Caller).
        cut: Spans that were cut by a limit.
        branches: How often the run went back to try something else.
        seconds: Wall-clock time.
    """

    session: int
    strategy: str
    stop_reason: StopReason
    answer: str | None
    refusal: str | None
    trajectory: Trajectory
    transcript: Transcript
    steps: int
    calls: tuple[MadeCall, ...]
    prefill_tokens: int
    generated_tokens: int
    undecided: int
    cut: int
    branches: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """What ``umi run --json`` prints; of a run that may branch, the strategy and the branches too."""
        searched = {} if self.strategy == "react" else {"strategy": self.strategy, "branches": self.branches}
        return {
            "answer": self.answer,
            "stop_reason": self.stop_reason.value,
            "calls": [call.to_json() for call in self.calls],
            "steps": self.steps,
            "tokens": {"prefill": self.prefill_tokens, "generated": self.generated_tokens},
            "trajectory": json.loads(self.trajectory.to_json()),
            **searched,
        }
