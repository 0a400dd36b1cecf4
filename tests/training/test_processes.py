"""Several processes train one run: the same losses and weights as one process with the same batches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alpha_umi.errors import RecipeError
from alpha_umi.run_directory import read_info
from alpha_umi.training.glpft import train
from alpha_umi.training.processes import ALONE, Processes, join
from tests.training.conftest import MUON
from tests.training.test_glpft import Finished, Killed, Tiny, kill_at, last_losses

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
from tests.training.test_processes import recorded_norms

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
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that two processes have trained: `whole`, `balanced`, and `begun`, which one process began."""
    from tests.training.conftest import tiny_recipe

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
        capture_output=True, text=True, encoding="utf-8", timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def close(one: Path, other: Path) -> None:
    """The same losses at every step; weights to what rounding may do to them.

    Muon rounds its updates to bf16, and AdamW divides a gradient by its own size: where that is next to nothing, as in
    an adapter's first steps, rounding decides which way a weight goes. So a model's weights are compared together.
    """
    ours, theirs = last_losses(one), last_losses(other)
    assert ours.keys() == theirs.keys()
    for step, losses in theirs.items():
        assert ours[step] == pytest.approx(losses, rel=1e-4), step
    for path in other.rglob("*.safetensors"):
        mine = load_file(one / path.relative_to(other))
        wanted = load_file(path)
        apart = sum(float((mine[name] - tensor).square().sum()) for name, tensor in wanted.items())
        size = sum(float(tensor.square().sum()) for tensor in wanted.values())
        assert apart**0.5 < 5e-2 * size**0.5, path


def test_two_processes_train_what_one_does_in_both_stages(pair: Path, finished: Finished):
    close(pair / "whole", finished(**WHOLE))
    info, alone = read_info(pair / "whole"), read_info(finished(**WHOLE))
    assert info is not None
    assert alone is not None
    assert info.done == alone.done
    for name, cost in alone.costs.items():
        assert info.costs[name]["loss_tokens"] == cost["loss_tokens"]
        assert info.costs[name]["trajectories"] == cost["trajectories"]
        assert info.costs[name]["tokens_forwarded"] <= cost["tokens_forwarded"]


def test_gradients_are_those_of_one_process_in_every_process(pair: Path, tiny: Tiny, tmp_path: Path):
    for name, system, changes in (("whole", "umi", WHOLE), ("balanced", "single-multitask", BALANCED)):
        with recorded_norms() as norms:
            train(tiny(system, out=str(tmp_path / name), **changes))
        for rank in range(2):
            theirs = json.loads((pair / f"{name}-norms-{rank}.json").read_text(encoding="utf-8"))
            assert theirs == pytest.approx(norms, rel=5e-3, abs=1e-6)


def test_voices_are_balanced_over_the_shares_of_all(pair: Path, finished: Finished):
    close(pair / "balanced", finished("single-multitask", **BALANCED))


def test_two_processes_go_on_where_one_was_killed(pair: Path, finished: Finished):
    close(pair / "begun", finished(**WHOLE))


def test_one_process_goes_on_where_two_were_killed(pair: Path, tiny: Tiny, tmp_path: Path, finished: Finished):
    shutil.copytree(pair / "whole-killed", tmp_path / "run")
    steps: list[tuple[str, int]] = []
    train(tiny(**WHOLE), lambda progress: steps.append((progress.name, progress.report.step)))
    assert steps == [("local/alora", 3), ("local/alora", 4)]
    close(tmp_path / "run", finished(**WHOLE))


def test_only_one_process_writes(pair: Path):
    lines = [json.loads(line) for line in (pair / "whole" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1)) * 5
    assert not list((pair / "whole").rglob("*partial*"))
    assert not list((pair / "whole").rglob("checkpoint-*"))


def test_what_is_wrong_with_a_recipe_is_said_by_all_of_them(pair: Path):
    for rank in range(2):
        assert "run of another recipe (different: seed)" in (pair / f"begun-error-{rank}").read_text(encoding="utf-8")


# ---- one process of several


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
