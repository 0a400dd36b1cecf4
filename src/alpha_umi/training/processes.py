"""Data parallelism: the processes that train one run together, started by ``accelerate launch`` or ``torchrun``.

Every process holds the whole model and learns from its share of each batch's rows. Losses are means over the loss
tokens of all shares together, and gradients are added up before the step, so the result is that of one process with
the same batch, to float rounding. The main process alone writes; all of them have to see its directory (a shared disk,
where there are several machines). Weights and optimizer state are not sharded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from alpha_umi import compute

if TYPE_CHECKING:
    from accelerate.state import PartialState

_T = TypeVar("_T")
_BUCKET = 1 << 24
"""Gradients that are sent together have this many weights, or one more matrix."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; by default it is alone, and nothing is sent.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def share(self, rows: Sequence[_T]) -> Sequence[_T]:
        """This process's part of what all have in hand; empty where there are fewer rows than processes."""
        return rows if self.count == 1 else rows[self.rank :: self.count]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of every process's values; they all have to ask for it."""
        if self.count == 1:
            return values
        from accelerate.utils.operations import reduce

        return reduce(values.to(compute.device()), "sum")  # pyright: ignore[reportReturnType]

    def agree(self, value: int) -> int:
        """The main process's value."""
        if self.count == 1:
            return value
        return int(self.total(torch.tensor(value if self.main else 0)))

    def wait(self) -> None:
        """Returns once every process has called it."""
        if self.count > 1:
            _state().wait_for_everyone()

    def leave(self) -> None:
        """Ends the exchange with the others, at the end of the program."""
        if self.count > 1:
            _state().destroy_process_group()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others do; what is wrong there, all of them say."""
        if not self.main:
            self.wait()
        try:
            yield
        finally:
            if self.main:
                self.wait()

    def add_gradients(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Gives every process the sum of all gradients; a weight that no process has a gradient of keeps none."""
        if self.count == 1:
            return
        found = torch.tensor([p.grad is not None for p in weights], dtype=torch.float32)
        for bucket in _buckets([p for p, there in zip(weights, self.total(found).tolist(), strict=True) if there]):
            for p in bucket:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            flat = self.total(torch.cat([p.grad.flatten() for p in bucket if p.grad is not None]))
            for p, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = summed.view_as(p)


ALONE = Processes()


def join() -> Processes:
    """This process among those it was launched with, as the environment says (``WORLD_SIZE``); each has its cores."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    state = _state()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, compute.usable_cores() // here))
    return Processes(state.process_index, state.num_processes)


def _state() -> PartialState:
    from accelerate.state import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def _buckets(weights: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """The weights in order, some at a time."""
    bucket: list[torch.nn.Parameter] = []
    size = 0
    for p in weights:
        bucket.append(p)
        size += p.numel()
        if size >= _BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
