"""Threads that share out a training step on a CPU: each computes the forward and backward pass of some of its rows.

torch's own threads share out one operation at a time, and those of a small model are too short for that: two of them
make a step 1.1 to 1.2 times as fast as one, two that share out its rows 1.4 to 1.5 times (``benchmarks/shards.py``).
Gradients are added up in the order of the rows, so the result doesn't depend on which thread was faster.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch

Work = Callable[[slice], tuple[torch.Tensor, torch.Tensor]]
"""Of some rows: the loss of each token [N], detached, and the scalar that is to be minimised, with its graph."""


class Shards:
    """Threads, one a core, of which each computes with its own share of torch's threads.

    Args:
        count: How many there are; torch's threads are shared out among them.
    """

    def __init__(self, count: int) -> None:
        threads = torch.get_num_threads()
        self.count = count
        ready = threading.Barrier(count + 1)
        self._pool = ThreadPoolExecutor(count, "shard")
        for _ in range(count):
            self._pool.submit(_begin, max(1, threads // count), ready)
        ready.wait()
        torch.set_num_threads(threads)  # what a thread sets, those that are begun later would inherit

    def run(self, work: Work, rows: int, weights: Sequence[torch.nn.Parameter]) -> tuple[torch.Tensor, torch.Tensor]:
        """Does the work for all rows, shared out.

        Args:
            work: Is called in several threads, each with rows that follow one another.
            rows: How many there are.
            weights: Take gradients.

        Returns:
            The losses of all tokens, in order and detached; and the sum of the scalars, through which gradients flow.
        """
        losses: list[torch.Tensor] = []
        total = cast("Any", _Shared).apply(self, work, rows, losses, *weights)
        return torch.cat(losses), total

    def gradients(
        self, work: Work, rows: int, weights: Sequence[torch.nn.Parameter]
    ) -> list[tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor | None, ...]]]:
        """Losses, scalar and gradients of each share."""

        def one(part: slice) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor | None, ...]]:
            losses, scalar = work(part)
            return losses, scalar.detach(), torch.autograd.grad(scalar, weights, allow_unused=True)

        return list(self._pool.map(one, _shares(rows, self.count)))


def _begin(threads: int, ready: threading.Barrier) -> None:
    torch.set_num_threads(threads)
    ready.wait()


def _shares(rows: int, count: int) -> list[slice]:
    """The rows in parts that differ by one at most, the larger ones first."""
    count = min(rows, count)
    size, more = divmod(rows, count)
    starts = [number * size + min(number, more) for number in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(starts)]


class _Shared(torch.autograd.Function):
    """The sum of the shares' scalars; its gradients are known when it is."""

    @staticmethod
    def forward(
        ctx: Any, shards: Shards, work: Work, rows: int, losses: list[torch.Tensor], *weights: torch.nn.Parameter
    ) -> torch.Tensor:
        found = shards.gradients(work, rows, weights)
        losses += [share[0] for share in found]
        ctx.gradients = [_sum([share[2][number] for share in found]) for number in range(len(weights))]
        return torch.stack([share[1] for share in found]).sum()

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, scale: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        gradients = (None if gradient is None else gradient * scale for gradient in ctx.gradients)
        return (None, None, None, None, *gradients)


def _sum(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    there = [part for part in parts if part is not None]
    return sum(there[1:], start=there[0]) if there else None
