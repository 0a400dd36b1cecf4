from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from alpha_umi.run_directory import load_tokenizer, shipped_base
from alpha_umi.toolworld import make_tasks, solve
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
    return [solve(task) for task in make_tasks("train", 24, seed=3, easy=0.5)]


@pytest.fixture(scope="package")
def data(trajectories: list[Trajectory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a JSONL file."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_jsonl(path, trajectories)
    return path


@pytest.fixture
def tiny(tmp_path: Path, data: Path) -> Callable[..., GlpftRecipe]:
    """Makes recipes that train a few steps in about a second; keyword arguments replace keys, None removes them."""

    def make(system: str = "umi", **changes: Any) -> GlpftRecipe:
        content: dict[str, Any] = {
            "task": "glpft", "system": system, "out": str(tmp_path / "run"), "backbone": TINY,
            "data": {"source": str(data)}, "batch_tokens": 1024, "max_length": 512, "precision": "fp32", "threads": 1,
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

    return make
