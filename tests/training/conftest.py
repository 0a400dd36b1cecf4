from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from alpha_umi.run_directory import load_tokenizer, shipped_base
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.training.glpft import train
from alpha_umi.training.recipe import GlpftRecipe, parse_recipe
from alpha_umi.trajectory import Trajectory, write_jsonl
from alpha_umi.transcript import Renderer

TINY = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 32, "positions": 1024}
MUON = {"optimizer": "muon", "learning_rate": 5e-3, "decay": 0.5, "final": 0.1}


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests leave the other cores alone, and sums are made in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer that ships with the package."""
    return load_tokenizer(str(shipped_base()))


@pytest.fixture(scope="package")
def renderer(tokenizer: PreTrainedTokenizerBase) -> Renderer:
    return Renderer(tokenizer, observation_tokens=256)


@pytest.fixture(scope="package")
def trajectories() -> list[Trajectory]:
    """Short training episodes."""
    return [solve(task) for task in make_tasks("train", 12, seed=3, easy=0.5)]


@pytest.fixture(scope="package")
def data(trajectories: list[Trajectory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a JSONL file."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_jsonl(path, trajectories)
    return path


def tiny_recipe(data: Path, out: Path, /, system: str = "umi", **changes: Any) -> GlpftRecipe:
    """A recipe that trains a few steps in about a second; keyword arguments replace keys, None removes them."""
    content: dict[str, Any] = {
        "task": "glpft", "system": system, "out": str(out), "backbone": TINY, "data": {"source": str(data)},
        "batch_tokens": 512, "max_length": 512, "precision": "fp32", "threads": 1,
        "global_stage": {"steps": 3, "optimization": MUON},
    }  # fmt: skip
    if system in ("umi", "multi-one-stage"):
        content["local_stage"] = {"steps": 2, "optimization": MUON}
    if system == "multi-one-stage":
        del content["global_stage"]
    content |= changes
    recipe = parse_recipe({key: value for key, value in content.items() if value is not None})
    assert isinstance(recipe, GlpftRecipe)
    return recipe


@pytest.fixture
def tiny(tmp_path: Path, data: Path) -> Callable[..., GlpftRecipe]:
    """Makes tiny recipes; the run goes to `run` in the test's own folder, if no ``out`` is given."""
    return partial(tiny_recipe, data, tmp_path / "run")


@pytest.fixture(scope="package")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the finished run of a tiny recipe, trained once for all tests: to be read, and copied to be changed."""
    runs: dict[str, Path] = {}

    def run(system: str = "umi", **changes: Any) -> Path:
        key = f"{system} {changes}"
        if key not in runs:
            runs[key] = tmp_path_factory.mktemp("finished") / "run"
            train(tiny_recipe(data, runs[key], system, **changes))
        return runs[key]

    return run
