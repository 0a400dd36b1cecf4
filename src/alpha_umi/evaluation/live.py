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
        steps: Planner decisions.
        calls: Tool calls made, malformed ones included.
        prefill_tokens: Tokens read by the models.
        generated_tokens: Tokens written by the models.
        trajectory: What happened.
        instruction: What the user asked for.
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
    stop_reasons: Mapping[str, int]
    by_kind: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """The object under ``live.{split}`` in ``report.json``."""
        return asdict(self) | {"ci95": list(self.ci95)}


def live_scores(results: Sequence[EpisodeResult], seed: int = 0) -> LiveScores:
    """Aggregates the episodes of one system on one split.

    Raises:
        ValueError: There is no episode.
    """
    if not results:
        raise ValueError("no episodes to score; run at least one")

    def mean(value: Callable[[EpisodeResult], float]) -> float:
        return math.fsum(map(value, results)) / len(results)

    solved = [float(result.solved) for result in results]
    return LiveScores(
        pass_rate=mean(lambda r: r.solved),
        ci95=bootstrap_mean(solved, [result.task_id for result in results], seed=seed),
        episodes=len(results),
        mean_steps=mean(lambda r: r.steps),
        mean_calls=mean(lambda r: r.calls),
        mean_generated_tokens=mean(lambda r: r.generated_tokens),
        mean_prefill_tokens=mean(lambda r: r.prefill_tokens),
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
