"""Episodes whose lengths are known beforehand, so that every peer generates the same number of tokens.

A `Script` says who speaks and for how many tokens, and what is read after that. What a random backbone generates is
appended as it is; a token of no meaning is as dear as any other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alpha_umi.engines.base import Ending, Engine, Generation, Request, Sampling
from alpha_umi.engines.stream import Stream
from alpha_umi.transcript import Renderer, Voice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpha_umi.training.batch import Row

_SAMPLING = Sampling(temperature=1.0)
"""A random backbone that takes its most probable token repeats itself, and would be stopped."""


@dataclass(frozen=True)
class Turn:
    """One span: who writes it, of how many tokens, and what is appended after it."""

    voice: Voice
    new: int
    after: tuple[int, ...]


@dataclass(frozen=True)
class Script:
    """One episode: what it begins with, and its turns."""

    prompt: tuple[int, ...]
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Ran:
    """What some episodes took.

    Attributes:
        seconds: Until the last of them was over.
        latency: Until one was over, on average.
        prefill: Tokens computed other than by one-token decode steps.
        tokens: Of the transcripts at the end.
    """

    seconds: float
    latency: float
    prefill: int
    tokens: int


def script(row: Row, scale: float, single: bool) -> Script:
    """The episode that leaves such a transcript.

    Args:
        row: Its ids and segments.
        scale: Of every length.
        single: One voice speaks for two roles that follow each other, as long as both.
    """

    def scaled(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(ids[: max(1, round(scale * len(ids)))]) if ids else ()

    segments, turns = row.segments, list[Turn]()
    for number, segment in enumerate(segments):
        stop = segments[number + 1].start if number + 1 < len(segments) else len(row.ids)
        new = max(1, round(scale * (segment.span_stop - segment.span_start)))
        after = scaled(row.ids[segment.span_stop : stop])
        if single and turns and not turns[-1].after:
            turns[-1] = Turn("assistant", turns[-1].new + new, after)
        else:
            voice: Voice = "assistant" if single else segment.kind  # pyright: ignore[reportAssignmentType]
            turns.append(Turn(voice, new, after))
    return Script(scaled(row.ids[: segments[0].start]), tuple(turns))


class EndlessRenderer(Renderer):
    """One whose end token is none of the backbone's, so that spans are as long as they are meant to be."""

    def __init__(self, plain: Renderer, vocabulary: int) -> None:
        super().__init__(plain.tokenizer, plain.voices, plain.observation_tokens)
        self.markers = replace(self.markers, end=vocabulary)


def run_scripts(engine: Engine, scripts: Sequence[Script], concurrency: int) -> Ran:
    """Runs episodes to their ends; the engine is left as it was found."""
    texts = [list(one.prompt) for one in scripts]
    turn = [0] * len(scripts)
    waiting = iter(range(len(scripts)))
    stream = Stream[int](engine)
    ends: list[float] = []
    prefill = 0

    def ask(number: int) -> None:
        wanted = scripts[number].turns[turn[number]]
        stream.ask(number, Request(number, wanted.voice, tuple(texts[number]), wanted.new), _SAMPLING)

    begun = time.perf_counter()
    for number, _ in zip(waiting, range(concurrency), strict=False):
        ask(number)
    while made := stream.collect():
        for number, span in made:
            wanted = scripts[number].turns[turn[number]]
            assert len(span.ids) == wanted.new
            prefill += span.prefill_tokens
            texts[number] += [*engine.renderer.header(wanted.voice), *span.ids, *wanted.after]
            turn[number] += 1
            if turn[number] < len(scripts[number].turns):
                ask(number)
                continue
            ends.append(time.perf_counter() - begun)
            engine.forget([number])
            following = next(waiting, None)
            if following is not None:
                ask(following)
    return Ran(max(ends), sum(ends) / len(ends), prefill, sum(map(len, texts)))


class ReferenceEngine:
    """Three models as the reference pipeline runs them: every prompt is computed from nothing by ``generate``.

    Args:
        models: Of each voice.
        renderer: Gives the headers.
        batch: Prompts in one call of ``generate``, padded on the left.
    """

    context = 1 << 20

    def __init__(self, models: Mapping[Voice, PreTrainedModel], renderer: Renderer, batch: int) -> None:
        self.models, self.renderer, self.batch = dict(models), renderer, batch

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """Generates one span a request; those of one voice run together."""
        made: dict[int, Generation] = {}
        for voice in self.models:
            mine = [number for number, request in enumerate(requests) if request.voice == voice]
            for at in range(0, len(mine), self.batch):
                numbers = mine[at : at + self.batch]
                made |= zip(numbers, self._spans(voice, [requests[n] for n in numbers], sampling), strict=True)
        return [made[number] for number in range(len(requests))]

    def _spans(self, voice: Voice, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        import torch

        model = self.models[voice]
        rows = [[*request.ids, *self.renderer.header(voice)] for request in requests]
        wanted = [request.max_new_tokens or sampling.max_new_tokens for request in requests]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        generate: Any = model.generate
        with torch.inference_mode():
            out = generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max(wanted), do_sample=True, pad_token_id=0
            )
        return [
            Generation(tuple(out[n, width : width + count].tolist()), Ending.LENGTH, len(row))
            for n, (row, count) in enumerate(zip(rows, wanted, strict=True))
        ]

    def prefill(self, requests: Sequence[Request]) -> list[int]:
        """Nothing is computed ahead."""
        return [0] * len(requests)

    def fork(self, parent: int, child: int, length: int) -> None:
        """Nothing is kept that could be forked."""

    def forget(self, sessions: Iterable[int]) -> None:
        """Nothing is kept."""
