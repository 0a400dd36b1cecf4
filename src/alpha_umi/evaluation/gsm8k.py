"""GSM8K as a world: the agent answers a question with programs that are run, and the number is checked.

An episode is solved if the summarizer's answer gives the reference's number. Whether a program of the episode printed
that number is told beside it (``executed``): a right answer that none printed was reckoned, or guessed, by the models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from alpha_umi.agent import ChosenStrategy, EpisodeOutcome, Limits, React, Trace
from alpha_umi.data.gsm8k import Question
from alpha_umi.engines.base import Engine
from alpha_umi.evaluation.kept import OnProgress, kept, scored_episodes, searched
from alpha_umi.evaluation.live import EpisodeResult
from alpha_umi.evaluation.live_run import NO_CLOCK, LiveTask, run_tasks
from alpha_umi.evaluation.numbers import among, answer_in, equal
from alpha_umi.tools import ToolSource
from alpha_umi.tools.sandbox import SandboxLimits
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory

SPLIT = "gsm8k"

PROGRAM_LIMITS = SandboxLimits(seconds=120)
"""What a program may take; it is held to time on the processor rather than on the wall."""


def evaluate_gsm8k(
    engine: Engine,
    questions: Sequence[Question],
    programs: ToolSource,
    folder: Path | None,
    on_progress: OnProgress,
    concurrency: int = 64,
    chosen: ChosenStrategy | None = None,
) -> dict[str, dict[str, Any]]:
    """Pass rate and token costs on questions, in the shape of ToolWorld's splits, and the share that was ``executed``.

    Args:
        engine: What generates.
        questions: From `data.gsm8k.read_questions`.
        programs: Has the tool that runs programs (`tools.program`); shared by all episodes.
        folder: Gets the episodes and the failures' traces; what it has of these questions isn't computed again.
        on_progress: Told (what, done, in all).
        concurrency: Episodes at one time.
        chosen: Strategy and limits; None is ReACT.
    """
    chosen = chosen or ChosenStrategy(React(), Limits())
    strategy, limits = chosen.strategy, replace(chosen.limits, seconds=NO_CLOCK, tool_timeout=NO_CLOCK)

    def run(trace: Trace | None) -> list[EpisodeResult]:
        return run_tasks(
            engine, questions, lambda question: _task(question, programs), limits=limits, sampling=chosen.sampling,
            concurrency=concurrency, strategy=strategy, trace=trace,
            on_progress=lambda done, total: on_progress(f"live {SPLIT}", done, total),
        )  # fmt: skip

    def compute() -> dict[str, Any]:
        scores, results = scored_episodes(folder, SPLIT, strategy, run)
        return scores | {"executed": sum(map(_executed, results)) / len(results)}

    named = searched(strategy, limits, chosen.sampling) | {"data": _fingerprint(questions)}
    return {SPLIT: kept(folder, f"live-{SPLIT}", len(questions), 0, compute, named)}


def verdict(question: Question, answer: str | None, trajectory: Trajectory) -> tuple[bool, str]:
    """Whether an answer gives the question's number, and why, in words."""
    given, right = answer_in(answer or ""), answer_in(question.answer)
    if right is None:
        return False, f"the reference's answer {question.answer!r} is no number"
    if given is None:
        return False, f"no number was answered; right is {question.answer}"
    if not equal(given, right):
        return False, f"{_written(given)} was answered; right is {question.answer}"
    source = "a program" if among(given, _observations(trajectory)) else "no program"
    return True, f"{question.answer} is right, and {source} printed it"


def _task(question: Question, programs: ToolSource) -> LiveTask:
    def judge(outcome: EpisodeOutcome) -> tuple[bool, str]:
        return verdict(question, outcome.answer, outcome.trajectory)

    count = question.calculations
    kind = f"{count} calculation{'' if count == 1 else 's'}"
    return LiveTask(question.id, SPLIT, kind, question.text, programs, judge, programs.tools)


def _executed(result: EpisodeResult) -> bool:
    """Whether the number that was answered, right or wrong, is one that a program printed."""
    last = result.trajectory.messages[-1]
    given = answer_in(last.content or "") if isinstance(last, AssistantMessage) else None
    return given is not None and among(given, _observations(result.trajectory))


def _observations(trajectory: Trajectory) -> list[str]:
    return [message.content for message in trajectory.messages if isinstance(message, ToolMessage)]


def _written(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else f"{float(number):g}"


def _fingerprint(questions: Sequence[Question]) -> str:
    return hashlib.sha256(repr(questions).encode()).hexdigest()[:16]
