"""One request on its way through batches: its prompt, its span so far, and why that ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from alpha_umi.engines.base import Ending, Listener
from alpha_umi.engines.constrain import Guide
from alpha_umi.engines.kv import SessionCache
from alpha_umi.engines.repetition import TIMES, repeats
from alpha_umi.transcript import Voice


@dataclass
class Row:
    """One request on its way through a batch.

    Attributes:
        number: Of the request.
        prompt: The transcript and the header.
        new: Longest span; 0 only computes the prompt.
        voice: Who speaks,
        header: and where in the prompt its header starts.
        guide: Holds the span to its grammar.
        known: What was computed of the session before,
        start: of it, how many tokens are the prompt's,
        version: and its version then.
        place: Number in the batch.
        out: The span so far.
        computed: How many of its tokens have keys and values, or will have them after the prefill.
        forced: How many of its tokens were not generated, being the only legal ones.
        logprob: Of the tokens that were generated, if that was asked for.
        ended: Why the span is complete, once it is.
        paused: All that was computed of the row, span included, while it waits for its next batch.
        listener: Is told the tokens of the span,
        told: and how many it was told.
        interrupt: Asked after each token; once it says so, the batch is left.
    """

    number: int
    session: int
    prompt: list[int]
    new: int
    voice: Voice = "assistant"
    header: int = 0
    guide: Guide | None = None
    known: SessionCache | None = None
    start: int = 0
    version: int = 0
    place: int = 0
    out: list[int] = field(default_factory=list)
    computed: int = 0
    forced: int = 0
    logprob: float = 0.0
    ended: Ending | None = None
    paused: SessionCache | None = None
    listener: Listener | None = None
    told: int = 0
    interrupt: Callable[[], bool] | None = None

    @property
    def tail(self) -> int:
        """Tokens of the prompt to compute."""
        return len(self.prompt) - self.start

    @property
    def held(self) -> SessionCache | None:
        """Where tokens are that need not be computed."""
        return self.known if self.paused is None else self.paused

    @property
    def begun(self) -> int:
        """How many of the row's tokens need not be computed."""
        return self.start if self.paused is None else len(self.paused.ids)

    @property
    def ahead(self) -> list[int]:
        """All tokens to compute before the next one is chosen."""
        if self.paused is None:
            return self.prompt[self.start :] + self.out[: self.computed]
        return self.out[self.begun - len(self.prompt) : self.computed]

    @property
    def slots(self) -> int:
        """Slots the row may come to use."""
        return len(self.prompt) + self.new

    @property
    def over(self) -> bool:
        """Whether the span is complete."""
        return self.ended is not None

    @property
    def ids(self) -> list[int]:
        """The tokens that have keys and values."""
        return self.prompt + self.out[: self.computed]

    def begin(self, end: int) -> None:
        """Puts what the span must begin with before the first choice."""
        if self.new > 0:
            self._force(end)
            self._look(end)
            self.computed = len(self.out) - (self.ended is Ending.END)

    def say(self, token: int, end: int) -> None:
        """Adds a token, and those that must follow it."""
        self.out.append(token)
        self._look(end)
        if not self.over:
            self._force(end)
            self._look(end)
        if self.listener is not None:
            self._tell(self.listener)

    def _tell(self, listener: Listener) -> None:
        new, self.told = self.out[self.told :], len(self.out)
        if listener(new) and not self.over:
            self.ended = Ending.STOPPED

    def pause(self, kv: torch.Tensor) -> None:
        """Leaves its batch, whose keys and values of it these are [L, 2, H, T, D]."""
        self.paused = SessionCache.copy(kv, self.ids)
        self.computed = len(self.out)

    def _force(self, end: int) -> None:
        if self.guide is not None:
            tokens = self.guide.forced()[: self.new - len(self.out)]
            self.out += tokens
            self.forced += len(tokens)

    def _look(self, end: int) -> None:
        """Whether the span is complete."""
        if self.out[-1:] == [end]:
            self.ended = Ending.END
        elif len(self.out) >= self.new:
            self.ended = Ending.LENGTH
        elif period := repeats(self.out):
            self.ended = Ending.REPETITION
            surplus = 0 if self.guide is None else self.guide.surplus(TIMES * period)
            self.out = self.out[: len(self.out) - (surplus or 0)]
            self.computed = min(self.computed, len(self.out))
