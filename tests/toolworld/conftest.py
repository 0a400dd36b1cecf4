from __future__ import annotations

import pytest

from alpha_umi.toolworld import SPLITS, Task, make_tasks, solve
from alpha_umi.trajectory import Trajectory

ALL_SPLITS = ("train", *SPLITS)


@pytest.fixture(scope="session")
def tasks() -> dict[str, list[Task]]:
    """300 tasks of every split."""
    return {split: list(make_tasks(split, 300, seed=5)) for split in ALL_SPLITS}


@pytest.fixture(scope="session")
def solved(tasks: dict[str, list[Task]]) -> dict[str, list[tuple[Task, Trajectory]]]:
    """The same tasks with the oracle's trajectories."""
    return {split: [(task, solve(task)) for task in some] for split, some in tasks.items()}


@pytest.fixture(scope="session")
def training_tasks() -> list[Task]:
    """A few thousand training tasks."""
    return list(make_tasks("train", 2500, seed=11))


@pytest.fixture(scope="session")
def training(training_tasks: list[Task]) -> list[Trajectory]:
    """Their trajectories."""
    return list(map(solve, training_tasks))
