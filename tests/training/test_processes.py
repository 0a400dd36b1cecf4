"""One process of several: which rows are its own, and when it is alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alpha_umi.errors import RecipeError
from alpha_umi.training.processes import ALONE, Processes, join


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_row_is_in_one_share(count: int):
    shares = [Processes(rank, count).share("abcd") for rank in range(count)]
    assert sorted("".join(map("".join, shares))) == list("abcd")


def test_a_program_that_was_started_by_itself_is_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() is ALONE
    assert ALONE.main
    sums = torch.ones(3)
    assert ALONE.total(sums) is sums


def test_pretraining_takes_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from alpha_umi.cli.training import train as train_command

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task: pretrain\nout: {tmp_path}\nsteps: 1\n", encoding="utf-8")
    monkeypatch.setattr("alpha_umi.training.processes.join", lambda: Processes(0, 2))
    monkeypatch.setattr("alpha_umi.compute.use_all_cores", lambda: None)
    with pytest.raises(RecipeError, match="pretraining runs in one process, not in 2"):
        train_command(recipe)
