"""Several systems evaluated at the same time, a process each.

Decoding a small model gains next to nothing from a second thread, so two systems on two cores take little longer than
one. Every process has its share of the cores and ends with the one that began it.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpha_umi.compute import usable_cores
from alpha_umi.errors import UserError
from alpha_umi.evaluation.toolworld_suite import OnProgress, Suite, evaluate_live, evaluate_static

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from alpha_umi.engines.base import Engine

_LOOK_EVERY = 1.0
"""Seconds between looks at whether the processes are alive."""


@dataclass(frozen=True)
class _Job:
    """What one process does."""

    name: str
    directory: Path
    folder: Path
    suite: Suite
    threads: int
    parent: int


@dataclass(frozen=True)
class _Progress:
    """What a process says on its way."""

    part: str
    done: int
    total: int


@dataclass(frozen=True)
class _Figures:
    """What a process says at its end."""

    name: str
    figures: dict[str, Any]


def evaluate_systems(
    directories: Mapping[str, Path], suite: Suite, out: Path, on_progress: OnProgress
) -> dict[str, dict[str, Any]]:
    """Static and live figures of every system on the same instructions.

    Args:
        directories: The run directory of each system.
        suite: The instructions.
        out: Where figures and episodes go, a folder a system; what is there already is not computed again.
        on_progress: Told (system and part, instructions done, in all).

    Returns:
        By system: ``static`` and ``live`` figures by split.

    Raises:
        UserError: A run directory can't be evaluated.
        RuntimeError: One of the processes ended before its work was done.
    """
    context = multiprocessing.get_context("spawn")
    messages: Queue[Any] = context.Queue()
    threads = max(1, usable_cores() // len(directories))
    running = {
        name: context.Process(
            target=_work, args=(_Job(name, path, out / name, suite, threads, os.getpid()), messages), daemon=True
        )
        for name, path in directories.items()
    }
    found: dict[str, dict[str, Any]] = {}
    try:
        for process in running.values():
            process.start()
        while len(found) < len(running):
            try:
                message = messages.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                _check(running, found)
                continue
            match message:
                case UserError():
                    raise message
                case _Figures(name, figures):
                    found[name] = figures
                case _Progress(part, done, total):
                    on_progress(part, done, total)
    finally:
        for process in running.values():
            if process.pid is not None:
                process.terminate()
                process.join()
    return {name: found[name] for name in directories}


def _check(running: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for name, process in running.items():
        if name not in found and process.exitcode:  # one that ended well may have its figures still on their way
            raise RuntimeError(f"the evaluation of {name} ended with exit code {process.exitcode}")


def _work(job: _Job, messages: Queue[Any]) -> None:
    """In a process of its own: the figures of one system, or what went wrong, into the queue."""
    import torch

    from alpha_umi.engines.load import open_engine

    torch.set_num_threads(job.threads)

    def report(part: str, done: int, total: int) -> None:
        if os.getppid() != job.parent:  # killed: nobody waits for the rest
            os._exit(1)
        messages.put(_Progress(f"{job.name} {part}", done, total))

    try:
        with open_engine(job.directory) as engine:
            messages.put(_Figures(job.name, _figures(engine, job, report)))
    except UserError as error:
        messages.put(UserError(str(error)))  # not every exception survives being pickled


def _figures(engine: Engine, job: _Job, report: OnProgress) -> dict[str, Any]:
    static = evaluate_static(engine, job.suite, job.folder, report)
    return {
        "static": {split: scores["paper"] | {"strict": scores["strict"]} for split, scores in static.items()},
        "live": evaluate_live(engine, job.suite, job.folder, report),
    }
