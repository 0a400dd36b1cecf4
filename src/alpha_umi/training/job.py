"""One training within a run: its budget of steps, its log, its checkpoints, and its result put in its place."""

from __future__ import annotations

import copy
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alpha_umi.errors import UserError
from alpha_umi.run_directory import RunInfo
from alpha_umi.training.loop import StepReport, Trainer
from alpha_umi.training.objective import Objective
from alpha_umi.training.optimizer import Optimization
from alpha_umi.training.processes import Processes
from alpha_umi.training.recipe import GlpftRecipe, StageRecipe
from alpha_umi.training.targets import WINDOW, Batches
from alpha_umi.transcript import Role

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Stage = Literal["global", "local", "local/lora", "local/alora"]
_WARM_UP, _TIMED = 2, 6

_BYTES_A_WEIGHT = 4 * 3
"""Disk a weight needs while it is trained: itself and two moments, in float32."""


@dataclass(frozen=True)
class Progress:
    """What a caller of `train` is told of every step."""

    stage: Stage
    role: Role | None
    report: StepReport

    @property
    def name(self) -> str:
        """What the bars call it, and ``run.json``: the name of its `Job`."""
        return self.stage if self.role is None else f"{self.stage}/{self.role}"


OnStep = Callable[[Progress], None]


@dataclass(frozen=True)
class Job:
    """One training within a run.

    Attributes:
        stage: Which stage it is, or is a part of.
        roles: Whose models come out of it; none in the global stage.
        share: How many jobs share the stage's minutes.
        batches: What it sees.
        settings: Optimizer and schedule.
        objective: Loads what is trained; the trainer and a trial of its speed each have their own.
        save: Puts the result in its place.
    """

    stage: Stage
    roles: tuple[Role, ...]
    share: int
    batches: Batches
    settings: Optimization
    objective: Callable[[Batches], Objective]
    save: Callable[[Objective], None]

    @property
    def role(self) -> Role | None:
        """The one role it is for, if it is one."""
        return self.roles[0] if len(self.roles) == 1 else None

    @property
    def name(self) -> str:
        """What ``run.json`` calls its costs and losses: ``global``, ``local/planner``, ``local/alora`` and so on."""
        return self.stage if self.role is None else f"{self.stage}/{self.role}"

    @property
    def done(self) -> list[str]:
        """What is done once it is."""
        return [f"{self.stage}/{role}" for role in self.roles] or [self.stage]


@dataclass
class Jobs:
    """Carries out the jobs of a run, and keeps its ``run.json`` and ``metrics.jsonl``.

    Attributes:
        recipe: Of the run.
        out: The run directory.
        info: Its ``run.json``, as of now; the main process writes it.
        on_step: Called by the main process after every step.
        processes: Those that train the run together.
    """

    recipe: GlpftRecipe
    out: Path
    info: RunInfo
    on_step: Callable[[Progress], None]
    processes: Processes

    def run(self, job: Job, stage: StageRecipe) -> None:
        """Takes a job to its end from wherever it is; nothing is done for one that has ended."""
        folder = self.out / "checkpoints" / job.name.replace("/", "-")
        if all(done in self.info.done for done in job.done):
            if self.processes.main:
                shutil.rmtree(folder, ignore_errors=True)  # left by a kill between the last two lines below
            return
        objective = job.objective(job.batches)
        _check_disk(self.out, objective.model)
        steps = self._budget(stage, job)
        if job.stage == "global":
            job.batches.steps, job.batches.easy = steps, self.recipe.data.easy
        trainer = Trainer(objective, job.settings, steps, folder, self.recipe.checkpoint_seconds)
        self.info.losses[job.name] = self._train(trainer, job)
        self.info.done += job.done
        if self.processes.main:
            job.save(objective)
            self.info.save(self.out)
            trainer.discard_checkpoints()
        self.processes.wait()

    def _train(self, trainer: Trainer, job: Job) -> dict[str, float]:
        """The last losses; what the job has cost goes into the run's costs."""
        last: dict[str, float] = {}
        log = self.out / "metrics.jsonl"
        if self.processes.main:
            _drop_torn_line(log)

        def on_step(report: StepReport) -> None:
            last.update(report.losses)
            if self.processes.main:
                progress = Progress(job.stage, job.role, report)
                _append(log, json.dumps(_line(self.recipe.system, progress)))
                self.on_step(progress)

        trainer.train(on_step)
        counts = trainer.counts
        self.info.costs[job.name] = {
            "steps": trainer.steps, "trajectories": job.batches.trajectories(trainer.steps),
            "tokens_forwarded": counts.tokens, "loss_tokens": counts.loss_tokens, "flops": counts.flops,
            "seconds": round(counts.seconds, 1),
        }  # fmt: skip
        return last

    def _budget(self, stage: StageRecipe, job: Job) -> int:
        """Steps of a job: as the recipe says, or what a measured warm-up says fits its minutes; kept a stage."""
        if stage.trajectories is not None:  # roles whose rows are shorter see as many of them in fewer steps
            return self.info.budget.setdefault(job.name, job.batches.steps_for(stage.trajectories))
        if job.stage not in self.info.budget:
            self.info.budget[job.stage] = stage.steps or self.processes.agree(_steps_in(stage, job))
            if self.processes.main:
                self.info.save(self.out)
        return self.info.budget[job.stage]


def _steps_in(stage: StageRecipe, job: Job) -> int:
    """Times some steps of a trial; jobs of one stage share its minutes."""
    assert stage.minutes is not None
    timed: list[float] = []
    batches = copy.copy(job.batches)  # what it has dealt by the end is not the job's: easy episodes fade by its length
    started = time.perf_counter()
    batches.rows(0)
    a_deal = (time.perf_counter() - started) / WINDOW
    trial = Trainer(
        job.objective(batches), job.settings, _WARM_UP + _TIMED, Path("/nonexistent"), checkpoint_seconds=float("inf")
    )
    trial.train(lambda report: timed.append(report.seconds))
    a_step = statistics.median(timed[_WARM_UP:]) + a_deal  # kernels are compiled for shapes that are seen first
    return max(1, int(stage.minutes * 60 / a_step / job.share))


def _append(path: Path, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(
            f"can't write {path}: {error.strerror or error}. Free some space; the same command goes on where it was."
        ) from error


def _drop_torn_line(path: Path) -> None:
    """Takes away a last line that a kill or a full disk cut off, so that the next one stands on its own."""
    if path.is_file():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def _line(system: str, progress: Progress) -> dict[str, object]:
    report = progress.report
    return {
        "system": system, "stage": progress.stage, "role": progress.role, "step": report.step, "steps": report.steps,
        "loss": {name: round(value, 6) for name, value in report.losses.items()},
        "tokens": report.tokens, "loss_tokens": report.loss_tokens, "seconds": round(report.seconds, 4),
        "time": round(time.time(), 1),
    }  # fmt: skip


def _check_disk(out: Path, model: PreTrainedModel) -> None:
    """Refuses to start what the disk can't hold: a checkpoint, the one that replaces it, and the trained weights."""
    needed = sum(p.numel() for p in model.parameters()) * _BYTES_A_WEIGHT * 2
    free = shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"{out}: {needed / 1e9:.1f} GB are needed for checkpoints and weights, {free / 1e9:.1f} GB are free; "
            "free some space or choose another 'out'"
        )
