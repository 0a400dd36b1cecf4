"""What a run may take, and why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from alpha_umi.errors import UserError
from alpha_umi.tools.execution import RESULT_BYTES
from alpha_umi.transcript import Voice

MAX_NEW_TOKENS: Mapping[Voice, int] = {"planner": 256, "caller": 256, "summarizer": 512, "assistant": 512}


class StopReason(StrEnum):
    """Why a run ended."""

    ANSWERED = "answered"
    """The summarizer has answered."""
    GAVE_UP = "gave_up"
    """The planner gave up; its rationale is what the user is told."""
    CLIENT_CALLS = "client_calls"
    """The caller has called tools that have no executor here: whoever runs the agent makes these calls."""
    STEP_LIMIT = "step_limit"
    """The planner has decided as often as it may on one path."""
    CALL_LIMIT = "call_limit"
    """The caller wants more calls than the run may make; those of its last turn were not made."""
    TIME_LIMIT = "time_limit"
    """The time is over; a span that is being generated is not interrupted."""
    TOKEN_LIMIT = "token_limit"
    """The models have written as many tokens as they may."""
    CONTEXT_LIMIT = "context_limit"
    """The transcript leaves no room for another span in the models' context."""
    SEARCH_LIMIT = "search_limit"
    """The search has made as many planner decisions, over all branches, as it may."""
    EXHAUSTED = "exhausted"
    """Every branch that could be tried has failed, not all for the same reason."""
    CANCELLED = "cancelled"
    """Whoever started the run stopped it."""


@dataclass(frozen=True)
class Limits:
    """What one run (from a user's message to the answer) may take.

    Attributes:
        steps: Planner decisions on one path; how many there may be on all branches together, a strategy says.
        calls: Tool calls, on all branches together.
        seconds: Wall-clock time, that of other episodes in the same batch included; checked between spans.
        tokens: Tokens that the models write, on all branches together.
        tool_timeout: Seconds one tool call may take.
        tool_bytes: Bytes of a tool's reply; of a longer one the head and the tail are kept.
        max_new_tokens: Longest span of each voice.
        least_new_tokens: Room that a span must have in the context; with less, the run ends.
    """

    steps: int = 12
    calls: int = 200
    seconds: float = 120.0
    tokens: int = 8192
    tool_timeout: float = 30.0
    tool_bytes: int = RESULT_BYTES
    max_new_tokens: Mapping[Voice, int] = field(default_factory=lambda: dict(MAX_NEW_TOKENS))
    least_new_tokens: int = 16

    def __post_init__(self) -> None:
        for name in ("steps", "calls", "seconds", "tokens", "tool_timeout", "tool_bytes", "least_new_tokens"):
            if not getattr(self, name) > 0:
                raise UserError(f"the limit {name} is {getattr(self, name)}; it must be above 0")
        for voice in MAX_NEW_TOKENS:
            if self.max_new_tokens.get(voice, 1) < 1:
                raise UserError(f"max_new_tokens of the {voice} is {self.max_new_tokens[voice]}; it must be 1 or more")

    def span(self, voice: Voice) -> int:
        """Longest span of a voice."""
        return self.max_new_tokens.get(voice, MAX_NEW_TOKENS[voice])
