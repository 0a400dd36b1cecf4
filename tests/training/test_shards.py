"""Threads that share out a step: what they compute is what one of them would."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from alpha_umi.compute import Precision
from alpha_umi.training.batch import Row, collate
from alpha_umi.training.nano import new_model
from alpha_umi.training.objective import RowObjective
from alpha_umi.training.recipe import NanoShape
from alpha_umi.transcript import IGNORED

SHAPE = NanoShape(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=96)


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def rows(count: int) -> list[Row]:
    generator = torch.Generator().manual_seed(count)
    found = []
    for number in range(count):
        ids = torch.randint(20, 300, (40 + 30 * number,), generator=generator).tolist()
        found.append(Row(ids, [IGNORED, *ids[1:-9], *[IGNORED] * 8, ids[-1]], [number % 3] * len(ids)))
    return found


def gradients(threads: int, count: int, precision: Precision) -> tuple[float, dict[str, float], list[torch.Tensor]]:
    torch.set_num_threads(threads)
    model = new_model(SHAPE, 300, 0).train()
    outcome = RowObjective(model, lambda step: collate(rows(count)), precision)(0)
    assert outcome.loss is not None
    outcome.loss.backward()
    return outcome.value, outcome.losses, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-5), ("bf16", 2e-2)])
@pytest.mark.usefixtures("four_threads")
def test_losses_and_gradients_are_those_of_one_thread(count: int, precision: Precision, near: float):
    value, losses, one = gradients(1, count, precision)
    shared, shared_losses, many = gradients(4, count, precision)
    assert shared == pytest.approx(value, rel=near)
    assert shared_losses == pytest.approx(losses, rel=near)
    assert len(one) == len(many)
    for a, b in zip(one, many, strict=True):
        assert torch.dist(a, b) <= near * a.norm()


@pytest.mark.usefixtures("four_threads")
def test_the_same_step_gives_the_same_bits():
    first, again = gradients(4, 5, "bf16")[2], gradients(4, 5, "bf16")[2]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.usefixtures("four_threads")
def test_torch_keeps_its_threads_here_and_in_threads_that_are_begun_later():
    RowObjective(new_model(SHAPE, 300, 0), lambda step: collate(rows(2)))
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), later) == (4, [4])
