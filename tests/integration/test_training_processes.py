"""Several processes train one run: the same losses and weights as one process with the same batches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alpha_umi.run_directory import read_info
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.training.glpft import train
from alpha_umi.trajectory import write_jsonl
from tests.training.conftest import MUON, tiny_recipe
from tests.training.test_glpft import Killed, kill_at, last_losses

STEPS = 4
LOCAL = {
    "steps": STEPS, "variants": ["full", "alora"], "optimization": MUON,
    "adapter": {"rank": 4, "optimization": {"learning_rate": 1e-2}},
}  # fmt: skip
WHOLE: dict[str, Any] = {"global_stage": {"steps": STEPS, "optimization": MUON}, "local_stage": LOCAL}
BALANCED: dict[str, Any] = {"batch_tokens": 1536, "global_stage": {"steps": STEPS, "optimization": MUON}}

PROGRAM = """
import json, os, shutil, sys
from alpha_umi.errors import RecipeError
from alpha_umi.training.glpft import train
from alpha_umi.training.recipe import parse_recipe
from tests.integration.test_training_processes import recorded_norms

def snapshot(progress):
    assert os.environ["RANK"] == "0", "the others are told nothing"
    if (progress.name, progress.report.step) == ("local/alora", 3):
        shutil.copytree(recipe.out, recipe.out + "-killed")          # all that a kill would leave

for recipe in map(parse_recipe, json.loads(sys.argv[1])):
    with recorded_norms() as norms:
        train(recipe, snapshot)
    with open(f"{recipe.out}-norms-{os.environ['RANK']}.json", "w") as file:
        json.dump(norms, file)

try:
    train(recipe.model_copy(update={"seed": 9}))
except RecipeError as error:
    with open(f"{recipe.out}-error-{os.environ['RANK']}", "w") as file:
        file.write(str(error))
"""


@contextmanager
def recorded_norms() -> Iterator[list[float]]:
    """The norms of the gradients that are clipped meanwhile: optimizers are blind to a wrong factor, these are not."""
    norms: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def record(weights: Iterable[torch.Tensor], limit: float) -> None:
        norms.append(clip(weights, limit).item())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", record)
        yield norms


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes with which no gradient is so small that rounding decides about the step."""
    path = tmp_path_factory.mktemp("episodes") / "train.jsonl"
    write_jsonl(path, (solve(task) for task in make_tasks("train", 12, seed=3, easy=0.5)))
    return path


@pytest.fixture(scope="module")
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that two processes have trained: `whole`, `balanced`, and `begun`, which one process began."""
    folder = tmp_path_factory.mktemp("pair")
    begun = tiny_recipe(data, folder / "begun", **WHOLE, checkpoint_seconds=1e-9)
    with pytest.raises(Killed):
        train(begun, kill_at("local/planner", 3))
    recipes = [
        tiny_recipe(data, folder / "whole", **WHOLE, checkpoint_seconds=1e-9),
        tiny_recipe(data, folder / "balanced", "single-multitask", **BALANCED), begun,
    ]  # fmt: skip
    given = json.dumps([recipe.model_dump(mode="json") for recipe in recipes])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    there = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*launch, str(program), given], env=os.environ | there,
        capture_output=True, text=True, encoding="utf-8", timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@dataclass(frozen=True)
class Alone:
    """A run that one process has trained, and the norms of its gradients."""

    folder: Path
    norms: list[float]


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Alone]:
    """The runs `whole` and `balanced`."""
    runs: dict[str, Alone] = {}
    for name, system, changes in (("whole", "umi", WHOLE), ("balanced", "single-multitask", BALANCED)):
        folder = tmp_path_factory.mktemp("alone") / name
        with recorded_norms() as norms:
            train(tiny_recipe(data, folder, system, **changes))
        runs[name] = Alone(folder, norms)
    return runs


def close(one: Path, other: Path) -> None:
    """The same losses and weights, to rounding (Muon rounds its updates to bf16)."""
    ours, theirs = last_losses(one), last_losses(other)
    assert ours.keys() == theirs.keys()
    for step, losses in theirs.items():
        assert ours[step] == pytest.approx(losses, rel=1e-4), step
    for path in other.rglob("*.safetensors"):
        mine = load_file(one / path.relative_to(other))
        for name, tensor in load_file(path).items():
            assert (mine[name] - tensor).norm() < 3e-2 * tensor.norm(), (path, name)


def test_two_processes_train_what_one_does_in_both_stages(pair: Path, alone: dict[str, Alone]):
    close(pair / "whole", alone["whole"].folder)
    info, theirs = read_info(pair / "whole"), read_info(alone["whole"].folder)
    assert info is not None
    assert theirs is not None
    assert info.done == theirs.done
    for name, cost in theirs.costs.items():
        assert info.costs[name]["loss_tokens"] == cost["loss_tokens"]
        assert info.costs[name]["trajectories"] == cost["trajectories"]
        assert info.costs[name]["tokens_forwarded"] <= cost["tokens_forwarded"]


def test_gradients_are_those_of_one_process_in_every_process(pair: Path, alone: dict[str, Alone]):
    for name, run in alone.items():
        for rank in range(2):
            theirs = json.loads((pair / f"{name}-norms-{rank}.json").read_text(encoding="utf-8"))
            assert theirs == pytest.approx(run.norms, rel=1e-3, abs=1e-6)


def test_voices_are_balanced_over_the_shares_of_all(pair: Path, alone: dict[str, Alone]):
    close(pair / "balanced", alone["balanced"].folder)


def test_two_processes_go_on_where_one_was_killed(pair: Path, alone: dict[str, Alone]):
    close(pair / "begun", alone["whole"].folder)


def test_one_process_goes_on_where_two_were_killed(pair: Path, data: Path, tmp_path: Path, alone: dict[str, Alone]):
    shutil.copytree(pair / "whole-killed", tmp_path / "run")
    steps: list[tuple[str, int]] = []
    recipe = tiny_recipe(data, tmp_path / "run", **WHOLE)
    train(recipe, lambda progress: steps.append((progress.name, progress.report.step)))
    assert steps == [("local/alora", 3), ("local/alora", 4)]
    close(tmp_path / "run", alone["whole"].folder)


def test_only_one_process_writes(pair: Path):
    lines = [json.loads(line) for line in (pair / "whole" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1)) * 5
    assert not list((pair / "whole").rglob("*partial*"))
    assert not list((pair / "whole").rglob("checkpoint-*"))


def test_what_is_wrong_with_a_recipe_is_said_by_all_of_them(pair: Path):
    for rank in range(2):
        assert "run of another recipe (different: seed)" in (pair / f"begun-error-{rank}").read_text(encoding="utf-8")
