"""Rows and batches: token sequences with what is learned of them, padded together.

Shapes: B rows, T tokens a row (right-padded, a multiple of 64), N tokens in the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alpha_umi.transcript import IGNORED, Segment

GROUPS: tuple[str, ...] = ("planner", "caller", "summarizer", "assistant", "text")
"""Whose token a loss token is; losses are reported per group."""

_PAD_TO = 64


@dataclass(frozen=True)
class Row:
    """One sequence of T tokens: ids, labels at the same offsets, and the group and weight of each loss token.

    Attributes:
        segments: What the labels come from, where they come from a transcript.
    """

    ids: Sequence[int]
    labels: Sequence[int]
    group: Sequence[int]
    weight: Sequence[float] | None = None
    segments: Sequence[Segment] = ()


@dataclass(frozen=True)
class Batch:
    """Rows padded together.

    Attributes:
        ids: int64 [B, T].
        select: bool [B, T], True where the *next* token is in the loss.
        targets: int64 [N], those next tokens.
        group: int64 [N], index into `GROUPS`.
        weight: float32 [N]; the loss is their weighted mean.
    """

    ids: torch.Tensor
    select: torch.Tensor
    targets: torch.Tensor
    group: torch.Tensor
    weight: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens forwarded, padding included."""
        return self.ids.numel()

    def rows(self, part: slice) -> Batch:
        """Some of the rows, padded as they are."""
        before, own = int(self.select[: part.start].sum()), int(self.select[part].sum())
        loss = slice(before, before + own)
        return Batch(self.ids[part], self.select[part], self.targets[loss], self.group[loss], self.weight[loss])


def collate(rows: Sequence[Row], pad_to: int = _PAD_TO) -> Batch:
    """Pads rows on the right to one multiple of ``pad_to``; no rows make a batch of no tokens.

    Few shapes are good for speed: CPU kernels are compiled per shape.
    """
    width = -(-max((len(row.ids) for row in rows), default=0) // pad_to) * pad_to
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    group = torch.zeros(len(rows), width, dtype=torch.long)
    weight = torch.ones(len(rows), width)
    for b, row in enumerate(rows):
        n = len(row.ids)
        ids[b, :n] = torch.tensor(row.ids)
        labels[b, : n - 1] = torch.tensor(row.labels[1:])  # the label of position t is token t + 1
        group[b, : n - 1] = torch.tensor(row.group[1:])
        if row.weight is not None:
            weight[b, : n - 1] = torch.tensor(row.weight[1:])
    select = labels != IGNORED
    return Batch(ids, select, labels[select], group[select], weight[select])
