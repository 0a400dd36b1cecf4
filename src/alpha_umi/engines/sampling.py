"""Choosing a token: greedily, or by random numbers that depend on nothing but the seed, the session and the place.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from alpha_umi.engines.base import Sampling

Chooser = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], torch.Tensor]
"""Gives token ids [B] for logits [B, V], the rows' numbers [B], how many tokens their spans have [B], and whether it is
the second choice there, which is independent of the first. Minus infinity is never chosen."""


def chooser(
    sampling: Sampling, sessions: Sequence[int], starts: Sequence[int], most: int, device: torch.device
) -> Chooser:
    """How rows choose.

    Args:
        sampling: Temperature, nucleus and seed.
        sessions: Of the rows, by number.
        starts: Where their spans begin in the transcript.
        most: Longest span.
        device: Of the logits.
    """
    if sampling.temperature == 0:
        return lambda logits, order, place, again: logits.argmax(-1)
    first, second = (
        torch.from_numpy(uniform(seed, sessions, starts, most)).to(device) for seed in (sampling.seed, ~sampling.seed)
    )

    def choose(logits: torch.Tensor, order: torch.Tensor, place: torch.Tensor, again: bool) -> torch.Tensor:
        probabilities = torch.softmax(logits.double() / sampling.temperature, -1)
        ranked = None
        if sampling.top_p < 1:
            probabilities, ranked = probabilities.sort(dim=-1, descending=True, stable=True)
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(before >= sampling.top_p, 0)
        total = probabilities.cumsum(-1)
        # a row that is over may be asked on, where the host looks at its tokens late
        wanted = (second if again else first)[order, place.clamp(max=most - 1), None] * total[:, -1:]
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
