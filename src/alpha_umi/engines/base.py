"""The engine protocol: spans for transcripts, many at a time.

An engine is asked with the transcript so far, without the header of the voice that is to speak; it appends that header
itself and returns the span. Transcripts are append-only, so an engine may keep what it has computed for a session and
compute only what was appended since; `forget` lets that go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from alpha_umi.errors import UserError
from alpha_umi.trajectory import Message, Tool
from alpha_umi.transcript import Renderer, Voice


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most probable token.
        top_p: Sample from the smallest set of tokens that has this probability together.
        seed: A sampled token is decided by (seed, session, position) and its distribution, whatever else is in the
            batch.
        max_new_tokens: Longest span, its end token included.
        logprobs: Say how probable each span is, where the engine can.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 256
    logprobs: bool = False

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more")


@dataclass(frozen=True)
class Conversation:
    """What a request's tokens stand for, for an engine that words its prompts itself or holds spans to the tools.

    Attributes:
        tools: What the agent is shown.
        messages: The turns so far.
        planner_text: What the planner wrote in this turn, decision included, if it was its turn before.
    """

    tools: Sequence[Tool]
    messages: Sequence[Message]
    planner_text: str | None = None


Listener = Callable[[Sequence[int]], bool]
"""Is told the tokens of a span as they are chosen, each once; says whether the span is to end there. It is called in
the thread that generates, and what it is told of a span that repeats itself may be taken back at the end."""


@dataclass(frozen=True)
class Request:
    """One voice is to speak.

    Attributes:
        session: Names the conversation; what was computed for it is used again.
        voice: Who speaks.
        ids: The transcript so far, without the voice's header.
        max_new_tokens: Longest span of this request; None takes the sampling's.
        conversation: The same as messages.
        grammar: Holds the span in place of its voice's own grammar, where the engine knows grammars (llguidance).
        listener: Is told the tokens as they come, by an engine that has them one by one.
    """

    session: int
    voice: Voice
    ids: Sequence[int]
    max_new_tokens: int | None = None
    conversation: Conversation | None = None
    grammar: str | None = None
    listener: Listener | None = field(default=None, compare=False, repr=False)


class Ending(Enum):
    """Why a span ended."""

    END = "end"
    """Its end token came."""
    LENGTH = "length"
    """It was cut, by ``max_new_tokens`` or the context."""
    REPETITION = "repetition"
    """It was cut, because it had begun to repeat itself; where a grammar holds it, after a legal text if it can be."""
    CONTEXT = "context"
    """Nothing was written: the server says that the conversation is too long for its model."""
    STOPPED = "stopped"
    """It was cut, because its listener had heard enough."""


@dataclass(frozen=True)
class Generation:
    """What a voice wrote.

    Attributes:
        ids: The span as it was generated, with its end token if that came.
        ended: Why it ended.
        prefill_tokens: Tokens of transcript and header that were computed for this request.
        cached_tokens: Tokens of transcript and header that were taken from the cache.
        forced_tokens: Tokens of the span that were not generated, because no other was legal.
        logprob: Natural log-probability of the generated tokens, under the model alone: at temperature 1 and with
            nothing forbidden; None if it was not asked for, or can't be told.
    """

    ids: tuple[int, ...]
    ended: Ending
    prefill_tokens: int = 0
    cached_tokens: int = 0
    forced_tokens: int = 0
    logprob: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the end token came; otherwise the span was cut."""
        return self.ended is Ending.END


@runtime_checkable
class Constrained(Protocol):
    """An engine that can hold spans to grammars."""

    @property
    def constrained(self) -> bool:
        """Whether it does, those of requests included."""
        ...


class Engine(Protocol):
    """What generates.

    Attributes:
        renderer: Made the transcripts that the models know; there is one of it, for the agent as for the engine.
        context: Tokens a transcript and what follows may have together.
    """

    renderer: Renderer
    context: int

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """Generates one span a request, in the order of the requests; sessions may occur more than once."""
        ...

    def prefill(self, requests: Sequence[Request]) -> list[int]:
        """Computes transcripts ahead, without a header, for `fork`; returns how many tokens that were, a request."""
        ...

    def fork(self, parent: int, child: int, length: int) -> None:
        """Lets a session begin with the first ``length`` tokens of another's; saves computing them again, no more."""
        ...

    def forget(self, sessions: Iterable[int]) -> None:
        """Frees what is kept for these sessions; unknown ones are passed over."""
        ...


class Uncached:
    """What an engine does that keeps nothing it has computed."""

    def prefill(self, requests: Sequence[Request]) -> list[int]:
        """Nothing is computed ahead."""
        return [0] * len(requests)

    def fork(self, parent: int, child: int, length: int) -> None:
        """Nothing is kept that could be forked."""
