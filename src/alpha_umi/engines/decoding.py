"""Generating the spans of a batch, token by token.

Rows that nothing holds to a grammar go in step, one token each, and the host need not look at every token. A row that
has a `alpha_umi.engines.constrain.Guide` chooses as any other, and once more, among what is allowed, if that isn't: the
most probable token of those, or one drawn anew, so that tokens have the probabilities they have among those allowed.
Where only one continuation is legal there is no choice: its tokens go through the model several in one forward, as far
as the other rows' padding doesn't cost more than that saves.

Shapes: B rows, S new tokens a row, T slots, V vocabulary, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alpha_umi.engines.constrain import Guide
from alpha_umi.engines.kv import BatchCache
from alpha_umi.engines.row import Row
from alpha_umi.engines.sampling import Chooser

VISIBLE_STEP = 64
ENOUGH_ROWS = 24
"""So many tokens share the fixed costs of a forward on a CPU well enough."""
_COMPACT_BELOW = 0.75

Forward = Callable[[Sequence[Row], torch.Tensor, torch.Tensor, torch.Tensor, BatchCache], torch.Tensor]
Keep = Callable[[Row, torch.Tensor], None]


@dataclass
class Decoder:
    """Generates the spans of one batch whose prompts are computed.

    Attributes:
        forward: Gives hidden states [B, S, H] for rows, ids [B, S], slots [B, S], mask [B, 1, S, T] and the cache.
        head: Gives logits [B, V] for hidden states [B, H].
        keep: Takes a row that is over, with its keys and values.
        choose: How tokens are chosen.
        end: The end token.
        dtype: Of masks.
        enough: How many tokens a forward costs to begin with.
        read_every: How many tokens may be generated before the host looks at them, where it need not.
        leave: So many rows may be left unfinished.
        scored: Whether rows are told how probable their tokens were.
    """

    cache: BatchCache
    forward: Forward
    head: Callable[[torch.Tensor], torch.Tensor]
    keep: Keep
    choose: Chooser
    end: int
    dtype: torch.dtype
    enough: int = ENOUGH_ROWS
    read_every: int = 1
    scored: bool = False
    leave: int = 0

    def run(self, rows: Sequence[Row], hidden: torch.Tensor) -> None:
        """Generates until all rows but ``leave`` are over, or until interrupted; rows that are not over are paused.

        Args:
            rows: Of the batch.
            hidden: The states of their last tokens [B, H].
        """
        for place, row in enumerate(rows):
            row.place = place
        self.cache.select(0, len(rows))
        live = self._guided(list(rows), hidden) if any(row.guide for row in rows) else self._plain(list(rows), hidden)
        for number, row in enumerate(live):
            if row.over:
                self.keep(row, self.cache.kv[:, :, number])
            else:
                row.pause(self.cache.kv[:, :, number])

    # -- all rows in step

    def _plain(self, live: list[Row], hidden: torch.Tensor) -> list[Row]:
        device, limit, cache = hidden.device, self.cache.kv.shape[4], self.cache
        # a row's next token takes the slot after those it has; `stop` is where it may write anything
        said = torch.tensor([len(row.out) for row in live], device=device)
        starts = [len(row.prompt) + len(row.out) for row in live]
        slots = torch.tensor(starts, device=device)[:, None]
        stop = torch.tensor([[row.slots] for row in live], device=device)
        mask = attention_mask(slots - 1, limit, self.dtype)  # [B, 1, 1, T]
        blocked = mask.view(len(live), limit)
        zero = torch.zeros(1, 1, dtype=self.dtype, device=device)
        order = torch.arange(len(live), device=device)
        pending: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        most = max(row.new - len(row.out) for row in live)
        for step in range(most):
            logits = self.head(hidden)
            token = self.choose(logits, order, said + step, False)  # [B]
            pending.append(token)
            if self.scored:
                scores.append(_logprobs(logits, token))
            if len(pending) == self.read_every or step + 1 == most:
                gone = self._read(live, pending, scores)
                pending, scores = [], []
                if gone:
                    running = [number for number, row in enumerate(live) if not row.over]
                    if len(running) <= self.leave:
                        break
                    if len(running) < _COMPACT_BELOW * len(live):
                        live, moved = self._compact(live, running)
                        keep = torch.tensor(moved, device=device)
                        slots, stop, token, order = slots[keep], stop[keep], token[keep], order[keep]
                        blocked, said, starts = blocked[keep], said[keep], [starts[number] for number in moved]
                        mask = blocked[:, None, None]
                if _interrupted(live):
                    break
            blocked.scatter_(1, slots, zero.expand_as(slots))
            visible = min(round_up(max(starts) + step + 1), limit)
            cache.aim(slots, visible)
            hidden = self.forward(live, token[:, None], slots, mask[..., :visible], cache)[:, 0]
            slots = torch.minimum(slots + 1, stop)
        return live

    def _read(self, live: list[Row], pending: list[torch.Tensor], scores: list[torch.Tensor]) -> bool:
        """Gives the rows their tokens, and their log-probabilities if there are any; says whether a row is over."""
        gone = False
        told = torch.stack(scores).tolist() if scores else [[0.0] * len(live)] * len(pending)
        for tokens, values in zip(torch.stack(pending).tolist(), told, strict=True):
            for row, token, value in zip(live, tokens, values, strict=True):
                if not row.over:
                    row.computed = len(row.out)
                    row.logprob += value
                    row.say(token, self.end)
                gone = gone or row.over
        return gone

    # -- rows with guides

    def _guided(self, live: list[Row], hidden: torch.Tensor) -> list[Row]:
        while True:
            self._speak(live, hidden)
            running = [number for number, row in enumerate(live) if not row.over]
            if len(running) <= self.leave or _interrupted(live):
                return live
            if len(running) < _COMPACT_BELOW * len(live):
                live, _ = self._compact(live, running)
            hidden = self._compute(live)

    def _speak(self, live: list[Row], hidden: torch.Tensor) -> None:
        """Every row whose tokens are all computed chooses one more."""
        ready = [number for number, row in enumerate(live) if not row.over and row.computed == len(row.out)]
        if ready:
            rows = [live[number] for number in ready]
            logits = self.head(hidden if len(ready) == len(live) else hidden[ready])
            tokens = self._pick(rows, logits)
            if self.scored:
                for row, value in zip(rows, _logprobs(logits, torch.tensor(tokens)).tolist(), strict=True):
                    row.logprob += value
            for row, token in zip(rows, tokens, strict=True):
                row.say(token, self.end)

    def _pick(self, rows: Sequence[Row], logits: torch.Tensor) -> list[int]:
        """A token for each row, which its guide has taken."""
        tokens = self._chosen(rows, logits)
        guides = {number: row.guide for number, row in enumerate(rows) if row.guide is not None}
        refused = {number: guide for number, guide in guides.items() if not guide.take(tokens[number])}
        if refused:
            again = self._chosen([rows[number] for number in refused], _held(logits, refused), again=True)
            for (number, guide), token in zip(refused.items(), again, strict=True):
                guide.take(token)
                tokens[number] = token
        return tokens

    def _chosen(self, rows: Sequence[Row], logits: torch.Tensor, again: bool = False) -> list[int]:
        order = torch.tensor([row.place for row in rows], device=logits.device)
        place = torch.tensor([len(row.out) for row in rows], device=logits.device)
        return self.choose(logits, order, place, again).tolist()

    def _compute(self, live: Sequence[Row]) -> torch.Tensor:
        """Runs tokens that are not computed yet, some of every row; returns the state of each row's last one [B, H]."""
        device, limit = self.cache.kv.device, self.cache.kv.shape[4]
        waiting = [0 if row.over else len(row.out) - row.computed for row in live]
        size = best_width(waiting, self.enough)
        counts = [min(count, size) for count in waiting]
        ids = [
            [*row.out[row.computed :][:count], *[0] * (size - count)] for row, count in zip(live, counts, strict=True)
        ]
        first = [row.slots if row.over else len(row.prompt) + row.computed for row in live]
        last = torch.tensor([[row.slots] for row in live], device=device)
        # padding writes after the row's last token, at most into the slot where it may write anything
        slots = (torch.tensor(first, device=device)[:, None] + torch.arange(size, device=device)).minimum(last)
        ends = [at + count for at, count in zip(first, counts, strict=True) if count]
        visible = min(round_up(max(ends)), limit)
        self.cache.aim(slots, visible)
        states = self.forward(
            live, torch.tensor(ids, device=device), slots, attention_mask(slots, visible, self.dtype), self.cache
        )
        for row, count in zip(live, counts, strict=True):
            row.computed += count
        return states[torch.arange(len(live), device=device), torch.tensor(counts, device=device).clamp(min=1) - 1]

    def _compact(self, live: list[Row], running: list[int]) -> tuple[list[Row], list[int]]:
        """Moves running rows from the end of the batch into the places of rows that are over.

        Returns:
            The rows that stay, and for each where it was. Rows that are over are put back into their sessions.
        """
        for number, row in enumerate(live):
            if row.over:
                self.keep(row, self.cache.kv[:, :, number])
        size = len(running)
        stay = set(running)
        holes = [number for number in range(size) if number not in stay]
        movers = [number for number in running if number >= size]
        where = list(range(size))
        for hole, mover in zip(holes, movers, strict=True):
            self.cache.kv[:, :, hole] = self.cache.kv[:, :, mover]
            where[hole] = mover
        self.cache.select(0, size)
        return [live[number] for number in where], where


def _interrupted(rows: Sequence[Row]) -> bool:
    """Whether somebody wants the batch to be left; all rows of a batch have the same interrupt."""
    interrupt = rows[0].interrupt
    return interrupt is not None and interrupt()


def _logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [B] of the tokens [B] that were chosen by logits [B, V]."""
    chosen = tokens.to(logits.device)[:, None]
    return (logits.gather(-1, chosen) - logits.logsumexp(-1, keepdim=True))[:, 0]


def _held(logits: torch.Tensor, guides: Mapping[int, Guide]) -> torch.Tensor:
    """The logits of the rows that have these guides, with minus infinity for what may not follow."""
    bits = np.stack([guide.allowed() for guide in guides.values()])
    allowed = torch.from_numpy(np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little"))
    banned = torch.ones(len(guides), logits.shape[-1], dtype=torch.bool)
    size = min(allowed.shape[1], logits.shape[-1])
    banned[:, :size] = allowed[:, :size] == 0
    return logits[list(guides)].masked_fill(banned.to(logits.device), -torch.inf)


def best_width(waiting: Sequence[int], enough: int) -> int:
    """How many tokens a row the next forward should take: most of those that wait for what it costs.

    Args:
        waiting: Tokens that wait, a row.
        enough: How many tokens, padding included, cost as much as any forward does to begin with.
    """
    widths = sorted({count for count in waiting if count > 0})
    return max(widths, key=lambda size: sum(min(count, size) for count in waiting) / (enough + len(waiting) * size))


def round_up(length: int) -> int:
    """A number of slots of which there are few different ones."""
    return -(-length // VISIBLE_STEP) * VISIBLE_STEP


def attention_mask(slots: torch.Tensor, visible: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask [B, 1, S, T] for queries at these slots [B, S]: each sees the slots up to its own."""
    seen = torch.arange(visible, device=slots.device) <= slots[..., None]
    mask = torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype, device=slots.device)
    return mask.masked_fill_(seen, 0)[:, None]
