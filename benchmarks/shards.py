"""A training step of the quickstart with its rows shared out among threads, against torch's own threads, and one.

The three take turns, step by step, on the same batches, each with a model and optimizer of its own.

    python benchmarks/shards.py [--steps 24] [--tokens 4096]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from alpha_umi.compute import usable_cores
from alpha_umi.quickstart import Quickstart
from alpha_umi.run_directory import load_model, load_renderer, shipped_base
from alpha_umi.training.loop import Trainer
from alpha_umi.training.objective import RowObjective
from alpha_umi.training.targets import Batches, open_source
from alpha_umi.transcript import ROLES

_WARM_UP = 3


def main() -> None:
    """Prints seconds of a step (median), tokens a second, and how many times as fast as one thread."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=24)
    recipe = Quickstart(Path("unused")).umi_recipe()
    assert recipe.global_stage is not None
    parser.add_argument("--tokens", type=int, default=recipe.batch_tokens)
    given = parser.parse_args()
    cores = usable_cores()
    trainers: dict[str, tuple[int, Trainer]] = {}
    for name, threads in (("one thread", 1), ("torch's threads", cores), ("rows shared out", cores)):
        torch.set_num_threads(cores if name == "rows shared out" else 1)  # what an objective is made with, it keeps
        batches = Batches(
            open_source(recipe.data), load_renderer(None, recipe.observation_tokens), ROLES, given.tokens,
            recipe.max_length, 0, steps=1000, reword=recipe.data.reword,
        )  # fmt: skip
        objective = RowObjective(load_model(str(shipped_base())), batches, "bf16")
        trainers[name] = threads, Trainer(objective, recipe.global_stage.optimization, 1000, Path("/nonexistent"), 1e9)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for step in range(1, _WARM_UP + given.steps + 1):
        for name, (threads, trainer) in trainers.items():
            torch.set_num_threads(threads)
            started = time.perf_counter()
            trainer.train(stop_at=step)
            if step > _WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    a_step = trainers["one thread"][1].counts.tokens / (_WARM_UP + given.steps)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    json.dump(
        {
            "cores": cores, "tokens_a_step": round(a_step),
            "seconds": {name: round(found, 3) for name, found in median.items()},
            "tokens_a_second": {name: round(a_step / found) for name, found in median.items()},
            "times_one_thread": {name: round(median["one thread"] / found, 2) for name, found in median.items()},
        },
        sys.stdout, indent=2,
    )  # fmt: skip
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
