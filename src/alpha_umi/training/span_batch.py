"""Transcripts and their role segments, padded together for the shared-prefix stage.

Shapes: B rows, T tokens a transcript, S segment tokens a row, N tokens in the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alpha_umi.training.batch import Row
from alpha_umi.transcript import ROLES

_PAD_TO = 64
_OWNERS: dict[str, int] = {role: number for number, role in enumerate(ROLES)}


@dataclass(frozen=True)
class SpanBatch:
    """Transcripts and their role segments.

    Attributes:
        ids: int64 [B, T], right-padded.
        segments: int64 [B, S]: the tokens of all segments but each one's end token, right-padded.
        positions: int64 [B, S], offsets in the transcript.
        starts: int64 [B, S], where the token's segment starts; 0 where there is none.
        number: int64 [B, S], which segment of the row it is; -1 where there is none.
        owner: int64 [B, S], index into `ROLES`; -1 where there is none.
        select: bool [B, S], True where the next token is in the loss.
        targets: int64 [N], those next tokens.
    """

    ids: torch.Tensor
    segments: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    number: torch.Tensor
    owner: torch.Tensor
    select: torch.Tensor
    targets: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens forwarded, padding included: transcripts once, segments once more."""
        return self.ids.numel() + self.segments.numel()

    def to(self, place: torch.device) -> SpanBatch:
        """The same batch on another device."""
        return SpanBatch(**{name: tensor.to(place) for name, tensor in vars(self).items()})


def collate_spans(rows: Sequence[Row], pad_to: int = _PAD_TO) -> SpanBatch:
    """Puts rows together; what follows a row's last segment is never read.

    Args:
        rows: Each with one segment at least.
        pad_to: T and S are multiples of it (few shapes: CPU kernels are compiled per shape).
    """
    width = _rounded(max(row.segments[-1].start for row in rows), pad_to)
    size = _rounded(max(sum(segment.span_stop - segment.start - 1 for segment in row.segments) for row in rows), pad_to)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    fields = {name: torch.zeros(len(rows), size, dtype=torch.long) for name in ("segments", "positions", "starts")}
    fields |= {name: torch.full((len(rows), size), -1) for name in ("number", "owner", "next")}
    for b, row in enumerate(rows):
        known = row.ids[: row.segments[-1].start]
        ids[b, : len(known)] = torch.tensor(known)
        at = 0
        for number, segment in enumerate(row.segments):
            start, first, stop = segment.start, segment.span_start, segment.span_stop
            place = slice(at, at := at + stop - start - 1)
            fields["segments"][b, place] = torch.tensor(row.ids[start : stop - 1])
            fields["positions"][b, place] = torch.arange(start, stop - 1)
            fields["starts"][b, place] = start
            fields["number"][b, place] = number
            fields["owner"][b, place] = _OWNERS[segment.kind]
            fields["next"][b, place][first - start - 1 :] = torch.tensor(row.ids[first:stop])
    following = fields.pop("next")
    select = following >= 0
    return SpanBatch(ids, **fields, select=select, targets=following[select])


def _rounded(size: int, step: int) -> int:
    return max(1, -(-size // step)) * step
