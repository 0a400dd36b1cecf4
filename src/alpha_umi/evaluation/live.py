"""Aggregates live episodes: pass rate with its interval, effort, stop reasons, and the failures as readable traces.

Running the episodes and judging them is done elsewhere; an :class:`EpisodeResult` is what comes out of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alpha_umi.evaluation.statistics import Interval, bootstrap_mean
from alpha_umi.evaluation.traces import fenced, trace_markdown
from alpha_umi.trajectory import Trajectory


@dataclass(frozen=True)
class EpisodeResult:
    """One episode and its verdict.

    Attributes:
        task_id: The instruction's name; episodes of one task are resampled together.
        split: Name of the split, such as ``I1-Inst``.
        kind: Kind of instruction, such as ``chain`` or ``impossible``.
        solved: The checker's verdict.
        reason: Why, in words.
        stop_reason: Why the run ended.
        steps: Planner decisions, on all branches together.
        calls: Tool calls made, malformed ones included, on all branches together.
        prefill_tokens: Tokens read by the models, likewise.
        generated_tokens: Tokens written by the models, likewise.
        trajectory: What happened on the path that counts.
        instruction: What the user asked for.
        branches: How often the run went back to try something else.
    """

    task_id: str
    split: str
    kind: str
    solved: bool
    reason: str
    stop_reason: str
    steps: int
    calls: int
    prefill_tokens: int
    generated_tokens: int
    trajectory: Trajectory
    instruction: str
    branches: int = 0


@dataclass(frozen=True)
class LiveScores:
    """Live results of one system on one split; rates are fractions in [0, 1], means are per episode.

    Attributes:
        pass_rate: Share of episodes solved.
        ci95: Its 95 % bootstrap interval over tasks.
        episodes: How many there were.
        mean_steps: Planner decisions.
        mean_calls: Tool calls.
        mean_generated_tokens: Tokens written.
        mean_prefill_tokens: Tokens read.
        mean_branches: How often a run went back.
        ci95_means: 95 % bootstrap intervals of these means over tasks, by name.
        stop_reasons: Episodes a stop reason, the most frequent first.
        by_kind: ``episodes`` and ``pass_rate`` of each kind of instruction, by name.
    """

    pass_rate: float
    ci95: Interval
    episodes: int
    mean_steps: float
    mean_calls: float
    mean_generated_tokens: float
    mean_prefill_tokens: float
    mean_branches: float
    ci95_means: Mapping[str, Interval]
    stop_reasons: Mapping[str, int]
    by_kind: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """The object under ``live.{split}`` in ``report.json``."""
        means = {name: list(interval) for name, interval in self.ci95_means.items()}
        return asdict(self) | {"ci95": list(self.ci95), "ci95_means": means}


_MEANS: Mapping[str, Callable[[EpisodeResult], float]] = {
    "mean_steps": lambda result: result.steps,
    "mean_calls": lambda result: result.calls,
    "mean_generated_tokens": lambda result: result.generated_tokens,
    "mean_prefill_tokens": lambda result: result.prefill_tokens,
    "mean_branches": lambda result: result.branches,
}


def live_scores(results: Sequence[EpisodeResult], seed: int = 0) -> LiveScores:
    """Aggregates the episodes of one system on one split.

    Raises:
        ValueError: There is no episode.
    """
    if not results:
        raise ValueError("no episodes to score; run at least one")

    groups = [result.task_id for result in results]

    def interval(value: Callable[[EpisodeResult], float]) -> Interval:
        return bootstrap_mean([float(value(result)) for result in results], groups, seed=seed)

    means = {name: math.fsum(map(value, results)) / len(results) for name, value in _MEANS.items()}
    solved = [result.solved for result in results]
    return LiveScores(
        pass_rate=sum(solved) / len(solved),
        ci95=interval(lambda result: result.solved),
        episodes=len(results),
        **means,
        ci95_means={name: interval(value) for name, value in _MEANS.items()},
        stop_reasons=dict(Counter(result.stop_reason for result in results).most_common()),
        by_kind=_by_kind(results),
    )


def failures_markdown(results: Sequence[EpisodeResult], limit: int = 20) -> str:
    """The first ``limit`` failed episodes as Markdown: instruction, every turn with its role, the verdict's reason."""
    failed = [result for result in results if not result.solved]
    head = f"# Failures\n\n{len(failed)} of {len(results)} episodes failed"
    head += f"; the first {limit} are shown.\n" if len(failed) > limit else ".\n"
    return "\n".join([head, *(_failure(number, result) for number, result in enumerate(failed[:limit], 1))])


def _failure(number: int, result: EpisodeResult) -> str:
    facts = (
        f"- verdict: {_line(result.reason)}\n- stop reason: `{result.stop_reason}`\n"
        f"- {result.steps} steps, {result.calls} calls, {result.generated_tokens} tokens written\n"
    )
    title = f"## {number}. {result.split} · {result.kind} · {result.task_id}\n"
    asked = f"**instruction**\n\n{fenced(result.instruction)}\n"
    return "\n".join([title, facts, asked, _after_instruction(result), ""])


def _after_instruction(result: EpisodeResult) -> str:
    """The trace, without the first turn where that is the instruction just shown."""
    trajectory = result.trajectory
    first = trajectory.messages[0] if trajectory.messages else None
    if first is not None and first.role == "user" and first.content == result.instruction:
        trajectory = Trajectory(trajectory.tools, trajectory.messages[1:])
    return trace_markdown(trajectory)


def _by_kind(results: Sequence[EpisodeResult]) -> dict[str, dict[str, float]]:
    episodes = Counter(result.kind for result in results)
    solved = Counter(result.kind for result in results if result.solved)
    return {kind: {"episodes": n, "pass_rate": solved[kind] / n} for kind, n in sorted(episodes.items())}


def _line(text: str) -> str:
    return " ".join(text.split())
