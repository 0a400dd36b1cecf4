"""What a live evaluation leaves on disk: figures that need not be computed again, episodes, and failures to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alpha_umi.agent import Limits, React, Strategy, Trace, open_trace
from alpha_umi.engines.base import Sampling
from alpha_umi.evaluation.live import EpisodeResult, failures_markdown, live_scores
from alpha_umi.trajectory import OURS, Trajectory, atomic_write, write_json

OnProgress = Callable[[str, int, int], None]
"""Told (what, done, in all)."""

PROTOCOL = 4
"""Of the figures kept on disk; those of another protocol are computed again."""


def searched(strategy: Strategy, limits: Limits, sampling: Sampling) -> dict[str, str]:
    """What names a search among the kept figures; greedy ReACT with the usual limits is kept without a name."""
    usual = isinstance(strategy, React) and (limits.steps, limits.tokens) == (Limits.steps, Limits.tokens)
    named = {} if usual else {"strategy": f"{strategy}, steps {limits.steps}, tokens {limits.tokens}"}
    return named | ({"temperature": f"{sampling.temperature:g}"} if sampling.temperature else {})


def scored_episodes(
    folder: Path | None,
    split: str,
    strategy: Strategy,
    run: Callable[[Trace | None], Sequence[EpisodeResult]],
    seed: int = 0,
) -> tuple[dict[str, Any], Sequence[EpisodeResult]]:
    """Runs the episodes of a split and scores them; with a ``folder``, all that happened is in it.

    Every step of a strategy that branches is there as it is taken; the rest, when all have ended.
    """
    steps = None if folder is None or isinstance(strategy, React) else folder / f"live-{split}-steps.jsonl"
    with open_trace(steps) as trace:
        results = run(trace)
    if folder is not None:
        _write_episodes(folder, split, results)
    return live_scores(results, seed).to_json(), results


def _write_episodes(folder: Path, split: str, results: Sequence[EpisodeResult]) -> None:
    """Writes every episode with its verdict, and the failures as readable traces."""
    with atomic_write(folder / f"live-{split}-episodes.jsonl") as file:
        for result in results:
            trajectory = result.trajectory
            verdict = {"solved": result.solved, "reason": result.reason, "stop_reason": result.stop_reason}
            extra = {"verdict": verdict, "kind": result.kind, "steps": result.steps, "calls": result.calls}
            extra["generated_tokens"] = result.generated_tokens
            told = Trajectory(trajectory.tools, trajectory.messages, result.task_id, {OURS: extra})
            file.write(told.to_json() + "\n")
    with atomic_write(folder / f"live-{split}-failures.md") as file:
        file.write(failures_markdown(results))


def kept(
    folder: Path | None,
    name: str,
    count: int,
    seed: int,
    compute: Callable[[], dict[str, Any]],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the folder has of these instructions, or what is computed and kept there."""
    if folder is None:
        return compute()
    path = folder / f"{name}.json"
    suite = {"instructions": count, "seed": seed, "protocol": PROTOCOL, **(more or {})}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before.get("suite") == suite:
            return before["scores"]
    scores = compute()
    write_json(path, {"suite": suite, "scores": scores})
    return scores
