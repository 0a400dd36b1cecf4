"""The quickstart: two systems trained from one global stage at equal compute, evaluated on the same instructions.

OUT/                   the ``umi`` run: backbone/ (stage 1), planner/, caller/, summarizer/
OUT/single-multitask/  the same stage 1, going on with all roles in one model
OUT/evaluation/        every split's figures, episodes and failures, by system
OUT/report.md|json     figures of both side by side, with plots
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alpha_umi.errors import UserError
from alpha_umi.evaluation.report import write_report
from alpha_umi.evaluation.side_by_side import evaluate_systems
from alpha_umi.evaluation.toolworld_suite import OnProgress, Suite
from alpha_umi.run_directory import BACKBONE, RunInfo
from alpha_umi.training.glpft import train
from alpha_umi.training.job import Progress
from alpha_umi.training.recipe import NANO_BASE, GlpftRecipe, parse_recipe
from alpha_umi.trajectory import write_json

GLOBAL_SHARE = 0.8
"""Of the training time; the local stage and its rival, stage 1 going on, have half of the rest each."""

REWORDED = 0.7
"""Share of trajectories whose schemas' words are exchanged, so that tools are read and not known by heart."""

INSTRUCTIONS = 4
"""Of a training conversation, at most: the schemas, half of a short transcript, are read once for all of them."""

BATCH_TOKENS = 3072

DEFAULT_MINUTES = 8.0
_LEAST_MINUTES = 0.05


@dataclass(frozen=True)
class Quickstart:
    """What to run.

    Attributes:
        out: The directory; a run that was interrupted there goes on.
        minutes: Training time of both systems together; evaluation comes on top.
        from_scratch: Start from random weights, not from the shipped backbone.
        suite: Instructions to evaluate on.
        seed: Of data order and weights.
    """

    out: Path
    minutes: float = DEFAULT_MINUTES
    from_scratch: bool = False
    suite: Suite = field(default_factory=Suite.default)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.minutes >= _LEAST_MINUTES:
            raise UserError(
                f"--minutes {self.minutes:g}: training takes {_LEAST_MINUTES} minutes at least "
                f"(the default is {DEFAULT_MINUTES:g})"
            )

    @property
    def directories(self) -> dict[str, Path]:
        """The run directory of each system."""
        return {"umi": self.out, "single-multitask": self.out / "single-multitask"}

    def umi_recipe(self) -> GlpftRecipe:
        """The ``umi`` run."""
        global_minutes, local_minutes = self.minutes * GLOBAL_SHARE, self.minutes * (1 - GLOBAL_SHARE) / 2
        return _recipe({
            "task": "glpft", "system": "umi", "out": str(self.out), "seed": self.seed,
            "data": {"seed": self.seed, "easy": 0.3, "instructions": INSTRUCTIONS, "reword": REWORDED},
            "backbone": {} if self.from_scratch else NANO_BASE, "batch_tokens": BATCH_TOKENS,
            "global_stage": {"minutes": global_minutes, "optimization": _optimization(2e-3, 0.5, 0.1)},
            "local_stage": {"minutes": local_minutes, "optimization": _optimization(5e-4, 0.9, 0.02)},
        })  # fmt: skip

    def multitask_recipe(self, umi: RunInfo) -> GlpftRecipe:
        """Stage 1 going on for as many FLOPs as the three local stages took."""
        local = sum(cost["flops"] for name, cost in umi.costs.items() if name.startswith("local/"))
        a_step = umi.costs["global"]["flops"] / umi.budget["global"]
        return _recipe({
            "task": "glpft", "system": "single-multitask", "seed": self.seed,
            "out": str(self.directories["single-multitask"]), "backbone": str(self.out / BACKBONE),
            "batch_tokens": BATCH_TOKENS,
            "data": {"seed": self.seed, "instructions": INSTRUCTIONS, "reword": REWORDED},
            "global_stage": {"steps": max(1, round(local / a_step)), "optimization": _optimization(5e-4, 0.9, 0.02)},
        })  # fmt: skip


def _optimization(learning_rate: float, decay: float, final: float) -> dict[str, Any]:
    return {
        "optimizer": "muon", "learning_rate": learning_rate, "other_learning_rate": learning_rate * 0.6,
        "decay": decay, "final": final,
    }  # fmt: skip


def _recipe(content: dict[str, Any]) -> GlpftRecipe:
    recipe = parse_recipe(content, "quickstart")
    assert isinstance(recipe, GlpftRecipe)
    return recipe


def run_quickstart(
    plan: Quickstart, on_step: Callable[[str, Progress], None], on_progress: OnProgress, command: str
) -> dict[str, Any]:
    """Trains and evaluates; returns what `finish_report` completes and writes. Every part that is done is kept."""
    started = time.perf_counter()
    umi = train(plan.umi_recipe(), lambda progress: on_step("umi", progress))
    rival = train(plan.multitask_recipe(umi), lambda progress: on_step("single-multitask", progress))
    trained = _clock(plan.out, "training", time.perf_counter() - started)
    started = time.perf_counter()
    systems = evaluate_systems(plan.directories, plan.suite, plan.out / "evaluation", on_progress)
    costs = {"umi": umi.costs, "single-multitask": {"global": umi.costs["global"], "going on": rival.costs["global"]}}
    for name, stages in costs.items():
        systems[name]["training"] = _training(stages)
    evaluated = _clock(plan.out, "evaluation", time.perf_counter() - started)
    return {
        "systems": systems,
        "comparison": "equal compute",
        "seconds": round(trained + evaluated, 1),
        "seconds_by_part": {"training": trained, "evaluation": evaluated},
        "tokens": {name: systems[name]["training"]["tokens_forwarded"] for name in systems},
        "command": command, "seed": plan.seed, "versions": umi.versions, "machine": _machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def finish_report(plan: Quickstart, report: dict[str, Any], example: dict[str, Any]) -> None:
    """Adds the solved example and writes the report with its plots."""
    report["example"] = example
    write_report(plan.out, report, {name: path / "metrics.jsonl" for name, path in plan.directories.items()})


def _training(stages: dict[str, dict[str, float]]) -> dict[str, Any]:
    keys = ("trajectories", "tokens_forwarded", "loss_tokens", "flops", "seconds")
    return {"stages": stages, **{key: sum(stage[key] for stage in stages.values()) for key in keys}}


def _clock(out: Path, name: str, seconds: float) -> float:
    """Adds seconds to those of earlier calls in this directory (what a kill cut off isn't counted)."""
    path = out / "clock.json"
    spent: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    spent[name] = round(spent.get(name, 0.0) + seconds, 1)
    write_json(path, spent)
    return spent[name]


def _machine() -> str:
    import torch

    return (
        f"{platform.machine()}, {os.cpu_count()} cores, torch on {torch.get_num_threads()} threads, {platform.system()}"
    )
