"""kill -9 in either stage, the same command again: the run ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.conftest import Done, command, environment

STEPS = {"global_stage.steps": 60, "local_stage.steps": 40}
LIMIT = 120


def arguments(recipe: Path, out: Path) -> list[str]:
    return ["train", str(recipe), f"out={out}", "checkpoint_seconds=0.05", *(f"{key}={n}" for key, n in STEPS.items())]


def lines(out: Path) -> list[dict[str, object]]:
    log = out / "metrics.jsonl"
    whole = log.read_text(encoding="utf-8").rpartition("\n")[0] if log.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def last_losses(out: Path) -> dict[object, object]:
    """Where a step was done again, the later line counts."""
    return {(line["stage"], line["role"], line["step"]): line["loss"] for line in lines(out)}


def train_until(recipe: Path, out: Path, reached: Callable[[dict[str, object]], bool]) -> None:
    """Trains, and kills the process as soon as it has written such a line."""
    before = len(lines(out))
    process = subprocess.Popen(command(arguments(recipe, out)), env=environment(), stdout=subprocess.DEVNULL)
    end = time.monotonic() + LIMIT
    try:
        while not any(map(reached, lines(out)[before:])):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_run_that_is_killed_in_both_stages_ends_like_one_that_is_not(
    here: Callable[..., Done], recipe: Path, tmp_path: Path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert here(*arguments(recipe, whole)).code == 0

    train_until(recipe, killed, lambda line: line["stage"] == "global" and line["step"] >= 25)
    assert list((killed / "checkpoints" / "global").iterdir())
    train_until(recipe, killed, lambda line: line["role"] == "caller" and line["step"] >= 20)
    state = json.loads((killed / "run.json").read_text(encoding="utf-8"))
    assert state["done"] == ["global", "local/planner"]
    last = here(*arguments(recipe, killed))
    assert last.code == 0, last.err

    assert last_losses(killed) == last_losses(whole)
    for part in ("backbone", "planner", "caller", "summarizer"):
        one, other = (load_file(run / part / "model.safetensors") for run in (killed, whole))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), part
    done = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in (killed, whole)]
    assert done[0]["losses"] == done[1]["losses"]
    assert done[0]["done"] == ["global", "local/planner", "local/caller", "local/summarizer"]
    assert not list(killed.rglob("checkpoint-*"))
