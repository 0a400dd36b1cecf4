"""The in-process engine: transformers models, batched, with keys and values that are only ever extended.

For each (model, session) the engine keeps the ids it has computed with their keys and values. A request brings the
transcript so far; what of it is in the cache is verified against the ids, and the rest (what other roles wrote, the
observation, the header) runs in one multi-token forward. Voices that share one model object share its cache too. What a
voice generates stays in its model's cache, so the next step only adds what others appended since.

A span whose request says what the tools are is held to what its voice may write (`alpha_umi.engines.grammars`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from transformers import PreTrainedModel

from alpha_umi.adapters import RoleAdapters
from alpha_umi.engines.base import Ending, Generation, Request, Sampling
from alpha_umi.engines.constrain import Constraint
from alpha_umi.engines.kv import common_prefix
from alpha_umi.engines.row import Row
from alpha_umi.engines.runner import Runner
from alpha_umi.engines.turns import Turns
from alpha_umi.errors import UserError
from alpha_umi.run_directory import Variant
from alpha_umi.transcript import Renderer, Voice

_LEAVE = 0.75
"""The share of a batch that waits for the next one, so that no forward has only a few rows."""
_SLICE = 16
"""So many tokens a batch generates while others wait, if it can be interrupted."""


class LocalEngine:
    """Generates with transformers models in this process.

    Works for decoder-only models with rotary (or other absolute) positions and full attention; this is checked on
    construction by comparing a cached, padded computation with the model's own.

    Args:
        models: The model of each voice that will be asked. Voices may share one. The models are moved, cast and put
            into evaluation mode in place.
        renderer: Made the transcripts.
        dtype: Weights, keys and values; None keeps the models' own.
        device: None keeps the models' own.
        threads: CPU threads for torch (of the whole process); None keeps what is set.
        context: Longest transcript; None takes the models' own limit.
        prefill_tokens: Tokens of one multi-token forward, padding included (a single longer tail is cut into parts).
        batch_bytes: Keys and values of one batch; more requests run one batch after another.
        cache_bytes: Keys and values kept between calls; over it, the sessions that were used least recently are
            dropped and are computed again if they come back.
        constrain: Hold spans to what their voice may write; False lets models write whatever they will.
        adapters: The roles' adapters on the one model that all voices share,
        variant: and which tokens they compute (see `alpha_umi.engines.turns`).

    Attributes:
        renderer: As given.
        context: Longest transcript and span together, in tokens.
    """

    def __init__(
        self,
        models: Mapping[Voice, PreTrainedModel],
        renderer: Renderer,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        threads: int | None = None,
        *,
        context: int | None = None,
        prefill_tokens: int = 2048,
        batch_bytes: int = 1 << 30,
        cache_bytes: int = 4 << 30,
        constrain: bool = True,
        adapters: RoleAdapters | None = None,
        variant: Variant | None = None,
    ) -> None:
        if not models:
            raise UserError("an engine needs a model for at least one voice")
        if threads is not None:
            torch.set_num_threads(threads)
        self.renderer = renderer
        unique = {id(model): model for model in models.values()}
        for model in unique.values():
            model.to(device=device, dtype=dtype).eval()  # pyright: ignore[reportCallIssue]
        self.context = min(_context(model, context) for model in unique.values())
        turns = None
        if adapters is not None and variant is not None:
            adapters.fuse()
            turns = Turns(adapters, variant)
        # what a role's lora adapter has read is of no use to another role
        shared: dict[Voice, tuple[int, str]] = {
            voice: (id(model), voice if variant == "lora" else "") for voice, model in models.items()
        }
        runners = {key: Runner(unique[key[0]], prefill_tokens, batch_bytes, turns) for key in set(shared.values())}
        self._runners: dict[Voice, Runner] = {voice: runners[key] for voice, key in shared.items()}
        self._cache_bytes = cache_bytes
        self._weights = sum(p.nbytes for model in unique.values() for p in model.parameters())
        self._weights += adapters.fused_bytes if adapters is not None else 0
        self._tickets = 0
        self._begun: dict[tuple[int, Sampling], tuple[Runner, list[Row]]] = {}
        self._constraint = Constraint(renderer) if constrain else None
        for runner in runners.values():
            runner.check()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """Generates one span a request. A prompt that fills the context gives an empty, unfinished span."""
        results: list[Generation | None] = [None] * len(requests)
        for runner, rows in self._rows(requests, sampling.max_new_tokens):
            ready = [row for row in rows if row.new > 0]
            runner.run(ready, sampling, self.renderer.markers.end)
            for row in rows:
                results[row.number] = _generation(row, sampling)
            runner.shrink(self._cache_bytes)
        return [result for result in results if result is not None]

    def begin(self, requests: Sequence[Request], sampling: Sampling) -> list[int]:
        """Takes requests on, for `advance`; returns a ticket each."""
        first, self._tickets = self._tickets, self._tickets + len(requests)
        for runner, rows in self._rows(requests, sampling.max_new_tokens):
            for row in rows:
                row.number += first
            self._begun.setdefault((id(runner), sampling), (runner, []))[1].extend(rows)
        return list(range(first, self._tickets))

    def advance(self, interrupt: Callable[[], bool] | None = None) -> dict[int, Generation]:
        """Generates until some of what was begun is complete, and returns that, by ticket.

        It is the model with the most spans to generate that does so; the others wait until more is asked of them. What
        is not complete goes on with a later call, in one batch with whatever is begun meanwhile. Spans are the same as
        `generate` gives. Nothing is returned only if nothing is left.

        With an interrupt, which is asked after each token, it comes back as soon as that says so, maybe with nothing;
        and spans that can't be in one batch (of another model, or sampled in another way) take turns.
        """
        if not self._begun:
            return {}
        if interrupt is None:
            key = max(self._begun, key=lambda key: len(self._begun[key][1]))
        else:
            key = next(iter(self._begun))  # what is put back comes last
        (runner, rows), sampling = self._begun.pop(key), key[1]
        if interrupt is not None and self._begun:
            interrupt = _slice(interrupt)
        for row in rows:
            row.interrupt = interrupt
        runner.run([row for row in rows if row.new > 0], sampling, self.renderer.markers.end, _LEAVE)
        runner.shrink(self._cache_bytes)
        left = [row for row in rows if row.new > 0 and not row.over]
        if left:
            self._begun[key] = runner, left
        return {row.number: _generation(row, sampling) for row in rows if row.new <= 0 or row.over}

    def prefill(self, requests: Sequence[Request]) -> list[int]:
        """Computes transcripts without a header; returns how many tokens that took, a request."""
        counts = [0] * len(requests)
        for runner, rows in self._rows(requests, None):
            ready = [row for row in rows if row.tail > 0 and len(row.prompt) <= self.context]
            runner.run(ready, Sampling(), self.renderer.markers.end)
            for row in ready:
                counts[row.number] = row.tail
            runner.shrink(self._cache_bytes)
        return counts

    def fork(self, parent: int, child: int, length: int) -> None:
        """Lets a session begin with the first ``length`` tokens of another's, in the same memory, in every model.

        Where the child already holds as much, it is left as it is.
        """
        for runner in {id(runner): runner for runner in self._runners.values()}.values():
            runner.fork(parent, child, length)

    def forget(self, sessions: Iterable[int]) -> None:
        """Frees what is kept for these sessions; what was begun for them is dropped."""
        sessions = set(sessions)
        left = {
            key: (runner, [row for row in rows if row.session not in sessions])
            for key, (runner, rows) in self._begun.items()
        }
        self._begun = {key: begun for key, begun in left.items() if begun[1]}
        for runner in self._runners.values():
            for session in sessions:
                runner.sessions.pop(session, None)

    @property
    def constrained(self) -> bool:
        """Whether spans are held to grammars, those of requests included."""
        return self._constraint is not None

    @property
    def voices(self) -> tuple[Voice, ...]:
        """Who can be asked."""
        return tuple(self._runners)

    @property
    def nbytes(self) -> int:
        """Memory of weights, adapters, keys and values."""
        return self._weights + sum({id(runner): runner.nbytes for runner in self._runners.values()}.values())

    def cached(self, session: int, voice: Voice) -> int:
        """Tokens of a session that a voice's model holds."""
        known = self._runners[voice].sessions.get(session)
        return len(known.ids) if known is not None else 0

    def _rows(self, requests: Sequence[Request], most: int | None) -> Iterator[tuple[Runner, list[Row]]]:
        """The requests of each model, as rows, with what is known of their sessions; None only prefills."""
        groups: dict[int, tuple[Runner, list[Row]]] = {}
        for number, request in enumerate(requests):
            runner = self._runners.get(request.voice)
            if runner is None:
                voices = ", ".join(self._runners)
                raise UserError(f"the engine has no model for the voice {request.voice!r}; it has {voices}")
            prompt, new, needed = list(request.ids), 0, 0
            if most is not None:
                prompt += self.renderer.header(request.voice)
                wanted = most if request.max_new_tokens is None else request.max_new_tokens
                # a token at least has to run: its output is what the first new token is chosen by
                new, needed = max(min(wanted, self.context - len(prompt)), 0), 1
            guide = self._constraint.guide(request) if self._constraint is not None and new > 0 else None
            row = Row(
                number, request.session, prompt, new, request.voice, len(request.ids), guide,
                runner.recall(request.session), listener=request.listener,
            )  # fmt: skip
            row.begin(self.renderer.markers.end)
            if row.known is not None:
                row.version = row.known.version
                row.start = min(common_prefix(row.known.ids, prompt), len(prompt) - needed)
            groups.setdefault(id(runner), (runner, []))[1].append(row)
        yield from groups.values()


def _slice(interrupt: Callable[[], bool]) -> Callable[[], bool]:
    """Says so once the interrupt does, or it has been asked often enough."""
    left = itertools.count(_SLICE - 1, -1)
    return lambda: next(left) <= 0 or interrupt()


def _generation(row: Row, sampling: Sampling) -> Generation:
    computed, cached = (row.tail, row.start) if row.new > 0 else (0, 0)
    logprob = row.logprob if sampling.logprobs else None
    return Generation(tuple(row.out), row.ended or Ending.LENGTH, computed, cached, row.forced, logprob)


def _context(model: PreTrainedModel, wanted: int | None) -> int:
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or wanted or 8192
    if wanted is not None and wanted > longest:
        raise UserError(f"context is {wanted}, but the model knows {longest} positions; give {longest} or less")
    context = wanted or longest
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    # Qwen2's config names a window it doesn't use unless told to; layer_types says which layers do
    windowed = "sliding_attention" in kinds if kinds else bool(window and getattr(config, "use_sliding_window", True))
    if windowed and window is not None and window < context:
        raise UserError(
            f"{type(model).__name__} attends through a sliding window of {window} tokens, and the in-process engine "
            f"knows full attention only: give a context of at most {window}, or use an OpenAI-compatible server"
        )
    other = kinds - {"full_attention", "sliding_attention"}
    if other:
        raise UserError(
            f"{type(model).__name__} has layers of the kind {', '.join(sorted(other))}, and the in-process engine "
            "knows full attention only: take a Llama- or Qwen-like model, or use an OpenAI-compatible server"
        )
    return context
