from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import torch

from alpha_umi.agent.limits import MAX_NEW_TOKENS
from alpha_umi.evaluation.toolworld_suite import SPAN_TOKENS
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.training.glpft import train
from alpha_umi.training.recipe import GlpftRecipe, parse_recipe
from alpha_umi.trajectory import write_jsonl

TINY = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 32, "positions": 2048}
PROGRAM = """
import os, sys
os.sched_getaffinity = lambda pid: {0}                                         # one thread, as the other tests
from alpha_umi.agent import limits
short = {"planner": 24, "caller": 24, "summarizer": 24, "assistant": 24}  # a random model never stops
limits.MAX_NEW_TOKENS.update(short)
if sys.argv[1] in ("quickstart", "eval"):
    from alpha_umi.evaluation import toolworld_suite
    toolworld_suite.SPAN_TOKENS.update(short)
from alpha_umi.cli import main
sys.argv[0] = "umi"
main()
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def command(arguments: Sequence[object]) -> list[str]:
    """``umi ...`` on one thread, with short spans."""
    return [sys.executable, "-c", PROGRAM, *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="package")
def umi() -> Callable[..., Done]:
    """Runs ``umi`` in a process of its own."""

    def run(*arguments: object, given: str = "", timeout: float = 200) -> Done:
        done = subprocess.run(
            command(arguments), env=environment(), input=given, capture_output=True, text=True, timeout=timeout,
            encoding="utf-8",
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs ``umi`` in this process: no imports to wait for, and what it uses can be replaced."""
    monkeypatch.setattr("alpha_umi.compute.use_all_cores", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    for spans in (MAX_NEW_TOKENS, SPAN_TOKENS):
        for voice in spans:
            monkeypatch.setitem(cast("dict[str, int]", spans), voice, 24)

    def run(*arguments: object) -> Done:
        from alpha_umi.cli import main

        monkeypatch.setattr(sys, "argv", ["umi", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of short trajectories."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_jsonl(path, (solve(task) for task in make_tasks("train", 16, seed=3, easy=1.0)))
    return path


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished run that knows nothing."""
    out = tmp_path_factory.mktemp("trained") / "run"
    recipe = parse_recipe({
        "task": "glpft", "system": "umi", "out": str(out), "backbone": TINY, "data": {"source": str(data)},
        "batch_tokens": 512, "max_length": 512, "precision": "fp32", "threads": 1,
        "global_stage": {"steps": 1}, "local_stage": {"steps": 1},
    })  # fmt: skip
    assert isinstance(recipe, GlpftRecipe)
    train(recipe)
    return out


@pytest.fixture
def recipe(tmp_path: Path, data: Path) -> Path:
    """A recipe that trains in a few seconds, most of which are spent on the start."""
    path = tmp_path / "recipe.yaml"
    shape = ", ".join(f"{key}: {value}" for key, value in TINY.items())
    path.write_text(
        f"task: glpft\nsystem: umi\nout: {tmp_path / 'run'}\nbackbone: {{{shape}}}\ndata: {{source: {data}}}\n"
        "batch_tokens: 512\nmax_length: 512\nprecision: fp32\nthreads: 1\n"
        "global_stage: {steps: 3}\nlocal_stage: {steps: 2}\n",
        encoding="utf-8",
    )
    return path
