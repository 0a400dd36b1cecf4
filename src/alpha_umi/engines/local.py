"""The in-process engine: transformers models, batched, with keys and values that are only ever extended.

For each (model, session) the engine keeps the ids it has computed with their keys and values. A request brings the
transcript so far; what of it is in the cache is verified against the ids, and the rest (what other roles wrote, the
observation, the header) runs in one multi-token forward. Voices that share one model object share its cache too. What a
voice generates stays in its model's cache, so the next step only adds what others appended since.

Shapes: B rows, S new tokens a row, T slots, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from alpha_umi.engines.base import Generation, Request, Sampling
from alpha_umi.engines.kv import BatchCache, SessionCache, Workspace, common_prefix
from alpha_umi.errors import UserError
from alpha_umi.transcript import Renderer, Voice

_VISIBLE_STEP = 64
_PREFILL_WIDTH = 256
"""A tail runs in parts of this many tokens, so that little is computed of what the causal mask hides."""
_PADDING = 1.25
_ENOUGH_ROWS = 24
"""So many rows share the fixed costs of a step well enough to leave longer ones to another batch."""
_COMPACT_BELOW = 0.75


@dataclass
class _Row:
    """One request on its way through a batch."""

    number: int
    session: int
    prompt: list[int]
    new: int
    known: SessionCache | None = None
    start: int = 0
    version: int = 0
    out: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def tail(self) -> int:
        """Tokens to prefill."""
        return len(self.prompt) - self.start

    @property
    def slots(self) -> int:
        """Slots the row may come to use."""
        return len(self.prompt) + self.new


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
        runners = {key: _Runner(model, prefill_tokens, batch_bytes) for key, model in unique.items()}
        self._runners: dict[Voice, _Runner] = {voice: runners[id(model)] for voice, model in models.items()}
        self._cache_bytes = cache_bytes
        for runner in runners.values():
            runner.check()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """Generates one span a request. A prompt that fills the context gives an empty, unfinished span."""
        results: list[Generation | None] = [None] * len(requests)
        for runner, rows in self._rows(requests, sampling.max_new_tokens):
            ready = [row for row in rows if row.new > 0]
            runner.run(ready, sampling, self.renderer.markers.end)
            for row in rows:
                computed, cached = (row.tail, row.start) if row.new > 0 else (0, 0)
                results[row.number] = Generation(tuple(row.out), row.finished, computed, cached)
            runner.shrink(self._cache_bytes)
        return [result for result in results if result is not None]

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
        """Frees what is kept for these sessions."""
        sessions = list(sessions)
        for runner in self._runners.values():
            for session in sessions:
                runner.sessions.pop(session, None)

    def cached(self, session: int, voice: Voice) -> int:
        """Tokens of a session that a voice's model holds."""
        known = self._runners[voice].sessions.get(session)
        return len(known.ids) if known is not None else 0

    def _rows(self, requests: Sequence[Request], most: int | None) -> Iterator[tuple[_Runner, list[_Row]]]:
        """The requests of each model, as rows, with what is known of their sessions; None only prefills."""
        groups: dict[int, tuple[_Runner, list[_Row]]] = {}
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
            row = _Row(number, request.session, prompt, new, runner.recall(request.session))
            if row.known is not None:
                row.version = row.known.version
                row.start = min(common_prefix(row.known.ids, prompt), len(prompt) - needed)
            groups.setdefault(id(runner), (runner, []))[1].append(row)
        yield from groups.values()


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


class _Runner:
    """One model with the sessions it has computed."""

    def __init__(self, model: PreTrainedModel, prefill_tokens: int, batch_bytes: int) -> None:
        self.model = model
        self.sessions: OrderedDict[int, SessionCache] = OrderedDict()
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._base: torch.nn.Module = model.base_model
        head = model.get_output_embeddings()
        if head is None:
            raise UserError(
                f"{type(model).__name__} has no output layer over the vocabulary; load it as a causal language model"
            )
        self._head: torch.nn.Module = head
        self._prefill_tokens = prefill_tokens
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        self._layers: int = config.num_hidden_layers
        self._heads: int = getattr(config, "num_key_value_heads", None) or heads
        self._width: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        token_bytes = self._layers * 2 * self._heads * self._width * parameter.element_size()
        self._batch_tokens = max(batch_bytes // token_bytes, 1)
        self._workspace = Workspace(self.dtype, self.device)
        # on a CPU a step's time is that of its rows and their padding; on a GPU a step's time is what counts
        self._enough = _ENOUGH_ROWS if self.device.type == "cpu" else self._batch_tokens
        # on a GPU the host runs ahead of the device; reading a token waits for it
        self._read_every = 1 if self.device.type == "cpu" else 8

    # -- sessions

    def recall(self, session: int) -> SessionCache | None:
        """What is known of a session, now the most recently used."""
        known = self.sessions.get(session)
        if known is not None:
            self.sessions.move_to_end(session)
        return known

    def fork(self, parent: int, child: int, length: int) -> None:
        """Gives ``child`` the first tokens of ``parent``."""
        known = self.recall(parent)
        current = self.sessions.get(child)
        if known is not None and (current is None or len(current.ids) < min(length, len(known.ids))):
            self.sessions[child] = known.fork(length)

    def shrink(self, limit: int) -> None:
        """Drops the sessions used least recently until the rest fits."""
        sizes = {id(known.kv): known.nbytes for known in self.sessions.values()}
        if sum(sizes.values()) <= limit:
            return
        readers: dict[int, int] = {}
        for known in self.sessions.values():
            readers[id(known.kv)] = readers.get(id(known.kv), 0) + 1
        total = sum(sizes.values())
        while total > limit and self.sessions:
            _, known = self.sessions.popitem(last=False)
            readers[id(known.kv)] -= 1
            total -= sizes[id(known.kv)] if readers[id(known.kv)] == 0 else 0

    def _keep(self, row: _Row, kv: torch.Tensor) -> None:
        """Puts a row [L, 2, H, T, D] back into its session."""
        ids = row.prompt + row.out[:-1]
        current = self.sessions.get(row.session)
        if current is not None and current is row.known and current.version == row.version:
            self.sessions[row.session] = current.extend(kv, ids, row.start)
        else:
            # another row of this batch, or of another voice's, has written the session meanwhile
            self.sessions[row.session] = SessionCache.copy(kv, ids)

    # -- computing

    def run(self, rows: list[_Row], sampling: Sampling, end: int) -> None:
        """Prefills the rows and generates up to ``row.new`` tokens each, in batches that fit."""
        rows = sorted(rows, key=lambda row: row.slots)
        while rows:
            count = 1
            while count < len(rows):
                slots = rows[count].slots
                if (count + 1) * (slots + _VISIBLE_STEP) > self._batch_tokens:
                    break
                if count >= self._enough and slots > _PADDING * rows[0].slots:
                    break
                count += 1
            with torch.inference_mode():
                self._batch(sorted(rows[:count], key=lambda row: row.tail), sampling, end)
            rows = rows[count:]

    def _batch(self, rows: list[_Row], sampling: Sampling, end: int) -> None:
        # a slot beyond every row's last one, for what padding and finished rows write; then rounded up
        slots = -(-(max(row.slots for row in rows) + 1) // _VISIBLE_STEP) * _VISIBLE_STEP
        kv = self._workspace.take(self._layers, len(rows), self._heads, slots, self._width)
        for number, row in enumerate(rows):
            if row.start and row.known is not None:
                kv[:, :, number, :, : row.start] = row.known.kv[:, :, :, : row.start]
        cache = BatchCache(kv)
        hidden = self._prefill(rows, cache)
        if rows[0].new > 0:
            self._decode(rows, cache, hidden, sampling, end)
        else:
            for number, row in enumerate(rows):
                row.out = [end]  # not kept: the last token of a span never is
                self._keep(row, kv[:, :, number])

    def _prefill(self, rows: list[_Row], cache: BatchCache) -> torch.Tensor:
        """Runs the tails of rows sorted by tail; returns the hidden state of each row's last token [B, hidden]."""
        last: list[torch.Tensor] = []
        lo = 0
        while lo < len(rows):
            hi, real = lo + 1, min(rows[lo].tail, _PREFILL_WIDTH)
            while hi < len(rows):
                width = min(rows[hi].tail, _PREFILL_WIDTH)
                padded = (hi + 1 - lo) * width
                if padded > self._prefill_tokens or padded > 1.25 * (real + width) + 64:
                    break
                hi, real = hi + 1, real + width
            last.append(self._prefill_part(rows[lo:hi], cache, lo))
            lo = hi
        return torch.cat(last)

    def _prefill_part(self, rows: list[_Row], cache: BatchCache, first: int) -> torch.Tensor:
        """Runs rows that fit together, `_PREFILL_WIDTH` tokens of each at a time, without those that are done."""
        device, size, limit = self.device, rows[-1].tail, cache.kv.shape[4]
        ids = torch.tensor([row.prompt[row.start :] + [0] * (size - row.tail) for row in rows], device=device)
        starts = torch.tensor([[row.start] for row in rows], device=device)
        slots = (starts + torch.arange(size, device=device)).clamp_(max=limit - 1)  # [B, S]
        same = len({row.start for row in rows}) == 1 and rows[0].start + size < limit
        last: list[torch.Tensor] = []
        for begin in range(0, size, _PREFILL_WIDTH):
            stop = min(begin + _PREFILL_WIDTH, size)
            done = sum(row.tail <= begin for row in rows)
            here = slots[done:, begin:stop]
            visible = min(_round_up(max(row.start for row in rows[done:]) + stop), limit)
            cache.select(first + done, first + len(rows))
            cache.aim(here, visible, slice(rows[0].start + begin, rows[0].start + stop) if same else None)
            hidden = self._forward(ids[done:, begin:stop], here, _mask(here, visible, self.dtype), cache)
            ends = [row.tail - 1 - begin for row in rows[done:] if row.tail <= stop]
            if ends:
                last.append(hidden[torch.arange(len(ends), device=device), torch.tensor(ends, device=device)])
        return torch.cat(last)

    def _forward(self, ids: torch.Tensor, slots: torch.Tensor, mask: torch.Tensor, cache: BatchCache) -> torch.Tensor:
        out: Any = self._base(
            input_ids=ids, attention_mask=mask, position_ids=slots, past_key_values=cache, use_cache=True
        )
        return out.last_hidden_state

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head(hidden).float()

    def _decode(self, rows: list[_Row], cache: BatchCache, hidden: torch.Tensor, sampling: Sampling, end: int) -> None:
        device, limit = self.device, cache.kv.shape[4]
        live = list(rows)
        # a row's first generated token takes the slot after its prompt; `stop` is where it may write anything
        slots = torch.tensor([[len(row.prompt)] for row in rows], device=device)
        stop = torch.tensor([[row.slots] for row in rows], device=device)
        longest = max(len(row.prompt) for row in rows)
        mask = _mask(slots - 1, limit, self.dtype)  # [B, 1, 1, T]
        blocked = mask.view(len(rows), limit)
        zero = torch.zeros(1, 1, dtype=self.dtype, device=device)
        choose = _chooser(rows, sampling, device)
        order = torch.arange(len(rows), device=device)
        pending: list[torch.Tensor] = []
        most = max(row.new for row in rows)
        cache.select(0, len(rows))
        for step in range(most):
            token = choose(self._logits(hidden), order, step)  # [B]
            pending.append(token)
            if len(pending) == self._read_every or step + 1 == most:
                gone = self._read(live, pending, end)
                pending = []
                if gone:
                    running = [number for number, row in enumerate(live) if not _over(row)]
                    if not running:
                        break
                    if len(running) < _COMPACT_BELOW * len(live):
                        live, moved = self._compact(live, running, cache)
                        keep = torch.tensor(moved, device=device)
                        slots, stop, token, order = slots[keep], stop[keep], token[keep], order[keep]
                        blocked = blocked[keep]
                        mask = blocked[:, None, None]
                        longest = max(len(row.prompt) for row in live)
                        cache.select(0, len(live))
            blocked.scatter_(1, slots, zero.expand_as(slots))
            visible = min(_round_up(longest + step + 1), limit)
            cache.aim(slots, visible)
            hidden = self._forward(token[:, None], slots, mask[..., :visible], cache)[:, 0]
            slots = torch.minimum(slots + 1, stop)
        for number, row in enumerate(live):
            self._keep(row, cache.kv[:, :, number])

    def _read(self, live: list[_Row], pending: list[torch.Tensor], end: int) -> bool:
        """Gives the rows their tokens; says whether any of them is over."""
        gone = False
        for tokens in torch.stack(pending).tolist():
            for row, token in zip(live, tokens, strict=True):
                if not _over(row):
                    row.out.append(token)
                    row.finished = token == end
                gone = gone or _over(row)
        return gone

    def _compact(self, live: list[_Row], running: list[int], cache: BatchCache) -> tuple[list[_Row], list[int]]:
        """Moves running rows from the end of the batch into the places of rows that are over.

        Returns:
            The rows that stay, and for each where it was. Rows that are over are put back into their sessions.
        """
        for number, row in enumerate(live):
            if _over(row):
                self._keep(row, cache.kv[:, :, number])
        size = len(running)
        stay = set(running)
        holes = [number for number in range(size) if number not in stay]
        movers = [number for number in running if number >= size]
        where = list(range(size))
        for hole, mover in zip(holes, movers, strict=True):
            cache.kv[:, :, hole] = cache.kv[:, :, mover]
            where[hole] = mover
        return [live[number] for number in where], where

    # -- checking

    def check(self) -> None:
        """Compares the padded, cached computation with the model's own.

        Raises:
            UserError: They differ, so the model needs something this engine doesn't do.
        """
        generator = torch.Generator().manual_seed(0)
        vocabulary: int = self.model.config.get_text_config().vocab_size
        prompts = [torch.randint(vocabulary, (n,), generator=generator).tolist() for n in (7, 12)]
        name = type(self.model).__name__
        advice = "take a Llama- or Qwen-like model, or use an OpenAI-compatible server"
        try:
            with torch.inference_mode():
                first = [_Row(n, n, prompt[:4], 0) for n, prompt in enumerate(prompts)]
                kv = self._workspace.take(self._layers, 2, self._heads, _VISIBLE_STEP, self._width)
                cache = BatchCache(kv)
                self._prefill(first, cache)
                second = [_Row(n, n, prompt, 0, start=4) for n, prompt in enumerate(prompts)]
                ours = self._logits(self._prefill(second, cache))
                plain = [self.model(torch.tensor([p], device=self.device)).logits[0, -1].float() for p in prompts]
        except (RuntimeError, TypeError, AttributeError, ValueError, NotImplementedError) as error:
            raise UserError(f"the in-process engine can't run {name} ({error}): {advice}") from error
        wanted = torch.stack(plain)
        apart = ((ours - wanted).norm() / wanted.norm().clamp(min=1e-9)).item()
        if not apart <= (1e-3 if self.dtype == torch.float32 else 0.1):
            raise UserError(
                f"the in-process engine computes something else than {name} itself does (off by {apart:.1%}), so the "
                f"model has more than rotary positions and full attention: {advice}"
            )


def _over(row: _Row) -> bool:
    return row.finished or len(row.out) >= row.new


def _round_up(length: int) -> int:
    return -(-length // _VISIBLE_STEP) * _VISIBLE_STEP


def _mask(slots: torch.Tensor, visible: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask [B, 1, S, T] for queries at these slots [B, S]: each sees the slots up to its own."""
    seen = torch.arange(visible, device=slots.device) <= slots[..., None]
    mask = torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype, device=slots.device)
    return mask.masked_fill_(seen, 0)[:, None]


# ---- choosing a token -----------------------------------------------------------------------------------------------

_Chooser = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def _chooser(rows: Sequence[_Row], sampling: Sampling, device: torch.device) -> _Chooser:
    """A function of logits [B, V], the rows' numbers [B] and the step that gives token ids [B]."""
    if sampling.temperature == 0:
        return lambda logits, order, step: logits.argmax(-1)
    most = max(row.new for row in rows)
    draws = torch.from_numpy(
        uniform(sampling.seed, [row.session for row in rows], [len(row.prompt) for row in rows], most)
    ).to(device)

    def choose(logits: torch.Tensor, order: torch.Tensor, step: int) -> torch.Tensor:
        probabilities = torch.softmax(logits.double() / sampling.temperature, -1)
        ranked = None
        if sampling.top_p < 1:
            probabilities, ranked = probabilities.sort(dim=-1, descending=True, stable=True)
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(before >= sampling.top_p, 0)
        total = probabilities.cumsum(-1)
        wanted = draws[order, step, None] * total[:, -1:]
        chosen = torch.searchsorted(total, wanted, right=True).clamp_(max=total.shape[-1] - 1)
        return (chosen if ranked is None else ranked.gather(-1, chosen))[:, 0]

    return choose


def uniform(seed: int, sessions: Sequence[int], starts: Sequence[int], count: int) -> np.ndarray:
    """Numbers in [0, 1) for positions ``start + 0 … count - 1`` of each session [B, count], the same on any machine.

    A hash of (seed, session, position), mixed as in splitmix64.
    """
    mask = (1 << 64) - 1
    keys = np.array([_mix_int((_mix_int(seed & mask) + session) & mask) for session in sessions], dtype=np.uint64)
    positions = np.array(starts, dtype=np.uint64)[:, None] + np.arange(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = keys[:, None] + positions * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _mix_int(value: int) -> int:
    mask = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)
