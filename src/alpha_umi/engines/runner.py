"""One model in this process: the sessions it has computed, and the batches that extend them.

Shapes: B rows, S new tokens a row, T slots, D width of a head, H hidden width, V vocabulary; L layers or, of a
cache, H key/value heads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from transformers import PreTrainedModel

from alpha_umi.engines.base import Sampling
from alpha_umi.engines.decoding import ENOUGH_ROWS, VISIBLE_STEP, Decoder, attention_mask, round_up
from alpha_umi.engines.kv import BatchCache, SessionCache, Workspace, common_prefix
from alpha_umi.engines.row import Row
from alpha_umi.engines.sampling import chooser
from alpha_umi.engines.turns import Turns
from alpha_umi.errors import UserError

_PREFILL_WIDTH = 256
"""A tail runs in parts of this many tokens, so that little is computed of what the causal mask hides."""
_PADDING = 1.25


class Runner:
    """One model with the sessions it has computed.

    Args:
        model: In its place, in its dtype.
        prefill_tokens: Tokens of one multi-token forward, padding included.
        batch_bytes: Keys and values of one batch.
        turns: The roles' adapters, if the model has some.
    """

    def __init__(
        self, model: PreTrainedModel, prefill_tokens: int, batch_bytes: int, turns: Turns | None = None
    ) -> None:
        self.model = model
        self._turns = turns
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
        self._enough = ENOUGH_ROWS if self.device.type == "cpu" else self._batch_tokens
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

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values: of all sessions, and of the batch."""
        return sum({id(known.kv): known.nbytes for known in self.sessions.values()}.values()) + self._workspace.nbytes

    def _keep(self, row: Row, kv: torch.Tensor) -> None:
        """Puts a row [L, 2, H, T, D] back into its session."""
        ids = row.ids if self._turns is None else row.ids[: self._turns.kept(row)]
        current = self.sessions.get(row.session)
        if current is not None and current is row.known and current.version == row.version:
            self.sessions[row.session] = current.extend(kv, ids, min(row.start, len(ids)))
        elif current is None or len(current.ids) <= len(ids) or current.ids[: len(ids)] != ids:
            # another row of this batch, or of another voice's, has written the session meanwhile
            self.sessions[row.session] = SessionCache.copy(kv, ids)

    # -- computing

    def run(self, rows: list[Row], sampling: Sampling, end: int, leave: float = 0.0) -> None:
        """Prefills the rows and generates up to ``row.new`` tokens each, in batches that fit.

        Args:
            rows: New ones, or paused before.
            sampling: How their tokens are chosen.
            end: The end token.
            leave: The share of a batch that may be left unfinished, paused.
        """
        rows = sorted(rows, key=lambda row: row.slots)
        while rows:
            count = 1
            while count < len(rows):
                slots = rows[count].slots
                if (count + 1) * (slots + VISIBLE_STEP) > self._batch_tokens:
                    break
                if count >= self._enough and slots > _PADDING * rows[0].slots:
                    break
                count += 1
            with torch.inference_mode():
                self._batch(rows[:count], sampling, end, int(leave * count))
            rows = rows[count:]

    def _batch(self, rows: list[Row], sampling: Sampling, end: int, leave: int) -> None:
        for row in rows:
            _still_known(row)
        rows = sorted(rows, key=lambda row: len(row.ahead))
        # a slot beyond every row's last one, for what padding and finished rows write; then rounded up
        slots = round_up(max(row.slots for row in rows) + 1)
        kv = self._workspace.take(self._layers, len(rows), self._heads, slots, self._width)
        for number, row in enumerate(rows):
            if row.begun and row.held is not None:
                kv[:, :, number, :, : row.begun] = row.held.kv[:, :, :, : row.begun]
        cache = BatchCache(kv)
        hidden = self._prefill(rows, cache)
        if rows[0].new > 0:
            self._decoder(rows, cache, sampling, end, leave).run(rows, hidden)
        else:
            for number, row in enumerate(rows):
                self._keep(row, kv[:, :, number])
        if self._turns is not None:
            self._turns.over()

    def _decoder(self, rows: list[Row], cache: BatchCache, sampling: Sampling, end: int, leave: int) -> Decoder:
        choose = chooser(
            sampling, [row.session for row in rows], [len(row.prompt) for row in rows], max(row.new for row in rows),
            self.device,
        )  # fmt: skip
        return Decoder(
            cache, self._forward, self._logits, self._keep, choose, end, self.dtype,
            self._enough, self._read_every, sampling.logprobs, leave,
        )  # fmt: skip

    def _prefill(self, rows: list[Row], cache: BatchCache) -> torch.Tensor:
        """Runs what is ahead of rows, sorted by how much that is; returns the states of their last tokens [B, H]."""
        last: list[torch.Tensor] = []
        sizes = [len(row.ahead) for row in rows]
        lo = 0
        while lo < len(rows):
            hi, real = lo + 1, min(sizes[lo], _PREFILL_WIDTH)
            while hi < len(rows):
                width = min(sizes[hi], _PREFILL_WIDTH)
                padded = (hi + 1 - lo) * width
                if padded > self._prefill_tokens or padded > 1.25 * (real + width) + 64:
                    break
                hi, real = hi + 1, real + width
            last.append(self._prefill_part(rows[lo:hi], cache, lo))
            lo = hi
        return torch.cat(last)

    def _prefill_part(self, rows: list[Row], cache: BatchCache, first: int) -> torch.Tensor:
        """Runs rows that fit together, `_PREFILL_WIDTH` tokens of each at a time, without those that are done."""
        ahead = [row.ahead for row in rows]
        device, size, limit = self.device, len(ahead[-1]), cache.kv.shape[4]
        ids = torch.tensor([tokens + [0] * (size - len(tokens)) for tokens in ahead], device=device)
        starts = torch.tensor([[row.begun] for row in rows], device=device)
        slots = (starts + torch.arange(size, device=device)).clamp_(max=limit - 1)  # [B, S]
        same = len({row.begun for row in rows}) == 1 and rows[0].begun + size < limit
        last: list[torch.Tensor] = []
        for begin in range(0, size, _PREFILL_WIDTH):
            stop = min(begin + _PREFILL_WIDTH, size)
            done = sum(len(tokens) <= begin for tokens in ahead)
            here = slots[done:, begin:stop]
            visible = min(round_up(max(row.begun for row in rows[done:]) + stop), limit)
            cache.select(first + done, first + len(rows))
            cache.aim(here, visible, slice(rows[0].begun + begin, rows[0].begun + stop) if same else None)
            hidden = self._forward(
                rows[done:], ids[done:, begin:stop], here, attention_mask(here, visible, self.dtype), cache
            )
            ends = [len(tokens) - 1 - begin for tokens in ahead[done:] if len(tokens) <= stop]
            if ends:
                last.append(hidden[torch.arange(len(ends), device=device), torch.tensor(ends, device=device)])
        return torch.cat(last)

    def _forward(
        self, rows: Sequence[Row], ids: torch.Tensor, slots: torch.Tensor, mask: torch.Tensor, cache: BatchCache
    ) -> torch.Tensor:
        with nullcontext() if self._turns is None else self._turns.routed(rows, slots):
            out: Any = self._base(
                input_ids=ids, attention_mask=mask, position_ids=slots, past_key_values=cache, use_cache=True
            )
        return out.last_hidden_state

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head(hidden).float()

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
        turns, self._turns = self._turns, None
        try:
            with torch.inference_mode():
                first = [Row(n, n, prompt[:4], 0) for n, prompt in enumerate(prompts)]
                kv = self._workspace.take(self._layers, 2, self._heads, VISIBLE_STEP, self._width)
                cache = BatchCache(kv)
                self._prefill(first, cache)
                second = [Row(n, n, prompt, 0, start=4) for n, prompt in enumerate(prompts)]
                ours = self._logits(self._prefill(second, cache))
                plain = [self.model(torch.tensor([p], device=self.device)).logits[0, -1].float() for p in prompts]
        except (RuntimeError, TypeError, AttributeError, ValueError, NotImplementedError) as error:
            raise UserError(f"the in-process engine can't run {name} ({error}): {advice}") from error
        finally:
            self._turns = turns
        wanted = torch.stack(plain)
        apart = ((ours - wanted).norm() / wanted.norm().clamp(min=1e-9)).item()
        if not apart <= (1e-3 if self.dtype == torch.float32 else 0.1):
            raise UserError(
                f"the in-process engine computes something else than {name} itself does (off by {apart:.1%}), so the "
                f"model has more than rotary positions and full attention: {advice}"
            )


def _still_known(row: Row) -> None:
    """Takes note of what has been written over in the row's session since it was looked up."""
    if row.known is not None and row.known.version != row.version:
        row.version = row.known.version
        row.start = min(common_prefix(row.known.ids, row.prompt), row.start)
