from __future__ import annotations

import pytest

from alpha_umi.toolworld import SPLITS, Task, make_task, make_tasks, solve
from alpha_umi.trajectory import Trajectory

ALL_SPLITS = ("train", *SPLITS)


@pytest.fixture(scope="session")
def tasks() -> dict[str, list[Task]]:
    """150 tasks of every split."""
    return {split: list(make_tasks(split, 150, seed=5)) for split in ALL_SPLITS}


@pytest.fixture(scope="session")
def solved(tasks: dict[str, list[Task]]) -> dict[str, list[tuple[Task, Trajectory]]]:
    """The same tasks with the oracle's trajectories."""
    return {split: [(task, solve(task)) for task in some] for split, some in tasks.items()}


@pytest.fixture(scope="session")
def training_tasks(tasks: dict[str, list[Task]]) -> list[Task]:
    """More than a thousand training tasks: those above and some that follow."""
    more = (make_task("train", index, seed=5) for index in range(len(tasks["train"]), 1200))
    return [*tasks["train"], *more]


@pytest.fixture(scope="session")
def training(training_tasks: list[Task], solved: dict[str, list[tuple[Task, Trajectory]]]) -> list[Trajectory]:
    """Their trajectories."""
    before = [trajectory for _, trajectory in solved["train"]]
    return [*before, *map(solve, training_tasks[len(before) :])]
