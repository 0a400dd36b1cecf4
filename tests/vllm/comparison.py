"""Two engines asked the same, and why what they say differs where it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from alpha_umi.engines import Ending, Generation, Request, Sampling
from alpha_umi.engines.base import Engine
from alpha_umi.run_directory import Run
from alpha_umi.transcript import ROLES, Role, Voice

Asked = tuple[Voice, tuple[int, ...]]


class Recorded:
    """An engine whose spans are kept, by who was asked and with which transcript."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.renderer, self.context = engine.renderer, engine.context
        self.spans: dict[Asked, Generation] = {}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        made = self._engine.generate(requests, sampling)
        self.spans |= {(one.voice, tuple(one.ids)): span for one, span in zip(requests, made, strict=True)}
        return made

    def prefill(self, requests: Sequence[Request]) -> list[int]:
        return self._engine.prefill(requests)

    def fork(self, parent: int, child: int, length: int) -> None:
        self._engine.fork(parent, child, length)

    def forget(self, sessions: Iterable[int]) -> None:
        self._engine.forget(sessions)


@dataclass(frozen=True)
class Difference:
    """One request that two engines answer differently.

    Attributes:
        here: What the engine in this process wrote,
        there: and the server.
        at: The first token in which they differ.
        gap: How much more the model thinks of the token chosen here, in logits; None if one text goes on where the
            other ends by a limit.
    """

    voice: Voice
    here: Generation
    there: Generation
    at: int
    gap: float | None

    @property
    def cut_for_repeating_itself(self) -> bool:
        """Whether the engine here stopped a span that the server went on with."""
        return self.here.ended is Ending.REPETITION and self.at >= len(self.here.ids)


def differences(run: Run, here: Recorded, there: Recorded) -> Iterator[Difference]:
    """Where the same request got two answers; ``run`` is loaded anew, its adapters not fused."""
    for (voice, ids), span in here.spans.items():
        other = there.spans.get((voice, ids))
        if other is None or other.ids == span.ids:
            continue
        pairs = zip(span.ids, other.ids, strict=False)
        at = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(span.ids), len(other.ids)))
        yield Difference(voice, span, other, at, _gap(run, voice, [*ids, *run.renderer.header(voice)], span, other, at))


def _gap(run: Run, voice: Voice, prompt: list[int], here: Generation, there: Generation, at: int) -> float | None:
    if at >= min(len(here.ids), len(there.ids)):
        return None
    assert run.adapters is not None and voice in ROLES
    role: Role = voice
    with torch.no_grad(), run.adapters.routed(role):
        logits = run.models[voice](torch.tensor([[*prompt, *here.ids[:at]]]), use_cache=False).logits[0, -1]
    return float(logits[here.ids[at]] - logits[there.ids[at]])
