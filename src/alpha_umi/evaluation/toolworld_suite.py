"""Static and live evaluation on the six ToolWorld splits, with every finished part kept on disk."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alpha_umi.agent import ChosenStrategy, Limits, React
from alpha_umi.engines.base import Engine
from alpha_umi.evaluation.kept import OnProgress, kept, scored_episodes, searched
from alpha_umi.evaluation.kept_steps import scored_steps, write_steps
from alpha_umi.evaluation.live_run import NO_CLOCK, run_toolworld
from alpha_umi.evaluation.metrics import StepPrediction, StepReference, paper_scores
from alpha_umi.evaluation.static import StaticPredictions, static_predictions
from alpha_umi.evaluation.strict import strict_scores
from alpha_umi.toolworld import SPLITS, Task, make_task, make_tasks, solve
from alpha_umi.transcript import Voice

INSTRUCTIONS: Mapping[str, int] = {split: 200 if split in ("I1-Inst", "I1-Tool") else 100 for split in SPLITS}
"""How many instructions of each split are evaluated unless told otherwise."""

SPAN_TOKENS: Mapping[Voice, int] = {"planner": 256, "caller": 192, "summarizer": 192, "assistant": 448}
"""Longest span of each voice in ToolWorld, half as much again as the oracle's: only a model that is lost is cut."""


@dataclass(frozen=True)
class Suite:
    """Which instructions are evaluated.

    Attributes:
        instructions: How many of each split.
        seed: Which ones.
        faulty: Only instructions on whose way tools fail.
    """

    instructions: Mapping[str, int]
    seed: int = 0
    faulty: bool = False

    @classmethod
    def default(cls, count: int | None = None, splits: Sequence[str] = SPLITS, faulty: bool = False) -> Suite:
        """The usual instructions, or ``count`` of each split."""
        return cls({split: count or INSTRUCTIONS[split] for split in splits}, faulty=faulty)

    def tasks(self, split: str) -> list[Task]:
        """The instructions of a split."""
        count = self.instructions[split]
        if not self.faulty:
            return list(make_tasks(split, count, self.seed))
        every = (make_task(split, index, self.seed) for index in itertools.count())
        return list(itertools.islice((task for task in every if task.faults), count))


def static_scores(predictions: StaticPredictions, seed: int = 0) -> dict[str, Any]:
    """The ``paper`` and the ``strict`` figures of a split, with n and intervals over trajectories."""
    return both_modes(
        [(reference, prediction) for _, reference, prediction in predictions],
        [name for name, _, _ in predictions],
        seed,
    )


def both_modes(
    pairs: Sequence[tuple[StepReference, StepPrediction]], groups: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Steps scored by the reference's rules and by the strict ones; ``groups`` names the trajectory of each."""
    return {
        "paper": paper_scores(pairs, groups, seed).to_json(),
        "strict": strict_scores(pairs, groups, seed).to_json(),
    }


def evaluate_static(
    engine: Engine, suite: Suite, folder: Path | None, on_progress: OnProgress
) -> dict[str, dict[str, Any]]:
    """Static metrics of each split, in both modes; what ``folder`` has of these instructions isn't computed again."""

    def one(split: str, count: int) -> dict[str, Any]:
        gold = [solve(task) for task in make_tasks(split, count, suite.seed)]
        run = static_predictions(
            engine, gold, max_new_tokens=SPAN_TOKENS,
            on_progress=lambda done, total: on_progress(f"static {split}", done, total),
        )  # fmt: skip
        if folder is not None:
            write_steps(folder / f"static-{split}-steps.jsonl", scored_steps(run))
        return static_scores(run, suite.seed)

    return {
        split: kept(folder, f"static-{split}", count, suite.seed, lambda s=split, c=count: one(s, c))
        for split, count in suite.instructions.items()
    }


def evaluate_live(
    engine: Engine,
    suite: Suite,
    folder: Path | None,
    on_progress: OnProgress,
    concurrency: int = 64,
    chosen: ChosenStrategy | None = None,
) -> dict[str, dict[str, Any]]:
    """Pass rates and token costs of each split.

    With a ``folder``, every episode's trajectory and the failures' traces are in it, and, of a strategy that branches,
    every step as it is taken.
    """
    chosen = chosen or ChosenStrategy(React(), Limits())
    strategy, limits = chosen.strategy, replace(chosen.limits, seconds=NO_CLOCK, max_new_tokens=SPAN_TOKENS)

    def one(split: str) -> dict[str, Any]:
        scores, _ = scored_episodes(
            folder, split, strategy, lambda trace: run_toolworld(
                engine, suite.tasks(split), concurrency=concurrency, limits=limits, sampling=chosen.sampling,
                on_progress=lambda done, total: on_progress(f"live {split}", done, total), strategy=strategy,
                trace=trace,
            ), suite.seed,
        )  # fmt: skip
        return scores

    named = searched(strategy, limits, chosen.sampling) | ({"faulty": True} if suite.faulty else {})
    return {
        split: kept(folder, f"live-{split}", count, suite.seed, lambda s=split: one(s), named)
        for split, count in suite.instructions.items()
    }
