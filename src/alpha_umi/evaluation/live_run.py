"""Live runs: an engine works on tasks whose tools answer, and a checker says whether they are solved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from alpha_umi.agent import Episode, EpisodeOutcome, Limits, React, StopReason, Strategy, Trace, run_episodes
from alpha_umi.engines.base import Engine, Sampling
from alpha_umi.evaluation.live import EpisodeResult
from alpha_umi.tools import ToolSource, ToolWorldSource
from alpha_umi.toolworld import Outcome, Task, World, check
from alpha_umi.trajectory import Tool, UserMessage

NO_CLOCK = float("inf")
"""What is measured must not depend on how busy the machine is. Steps and tokens still end every run."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class LiveTask:
    """An instruction, where it is worked on, and who says whether it is solved.

    Attributes:
        id: The instruction's name.
        split: Name of the split.
        kind: Kind of instruction.
        instruction: What the user asks for.
        source: The tools; its own, or one that it shares with others.
        judge: Whether an outcome solves it, and why, in words.
        tools: What the agent is shown; None takes all tools of the source.
    """

    id: str
    split: str
    kind: str
    instruction: str
    source: ToolSource
    judge: Callable[[EpisodeOutcome], tuple[bool, str]]
    tools: tuple[Tool, ...] | None = None


def run_tasks(
    engine: Engine,
    items: Sequence[Item],
    open_task: Callable[[Item], LiveTask],
    *,
    limits: Limits | None = None,
    sampling: Sampling | None = None,
    concurrency: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
    strategy: Strategy | None = None,
    trace: Trace | None = None,
) -> list[EpisodeResult]:
    """Runs every task and has it judged; results in the order of the items.

    Args:
        engine: What generates; its sessions 0 and on are used and given up again.
        items: What the tasks are made of.
        open_task: Makes the task of an item, when it is begun.
        limits: What each episode may take; None takes the strategy's, without a clock.
        sampling: How tokens are chosen.
        concurrency: Episodes at one time.
        on_progress: Told (episodes done, episodes in all).
        strategy: How each episode is searched; None is ReACT.
        trace: Is told every step; a run's session is the number of its task.
    """
    strategy = strategy or React()
    limits = limits or replace(strategy.limits(), seconds=NO_CLOCK)
    opened: dict[int, LiveTask] = {}

    def episodes() -> Iterator[Episode]:
        for number, item in enumerate(items):
            task = opened[number] = open_task(item)
            yield Episode(number, task.source, [UserMessage(task.instruction)], task.tools)

    results: dict[int, EpisodeResult] = {}
    for outcome in run_episodes(engine, episodes(), limits, sampling, concurrency, strategy=strategy, trace=trace):
        results[outcome.session] = _result(opened.pop(outcome.session), outcome)
        if on_progress is not None:
            on_progress(len(results), len(items))
    return [results[number] for number in range(len(items))]


def run_toolworld(
    engine: Engine,
    tasks: Sequence[Task],
    *,
    limits: Limits | None = None,
    sampling: Sampling | None = None,
    concurrency: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
    strategy: Strategy | None = None,
    trace: Trace | None = None,
) -> list[EpisodeResult]:
    """Runs every task (from `toolworld.make_tasks`) in a world of its own and checks it; see `run_tasks`."""
    return run_tasks(
        engine, tasks, _in_world, limits=limits, sampling=sampling, concurrency=concurrency, on_progress=on_progress,
        strategy=strategy, trace=trace,
    )  # fmt: skip


def _in_world(task: Task) -> LiveTask:
    world = World(task)

    def judge(outcome: EpisodeOutcome) -> tuple[bool, str]:
        verdict = check(task, world, Outcome(outcome.answer, outcome.stop_reason is StopReason.GAVE_UP))
        return verdict.solved, verdict.reason

    return LiveTask(task.id, task.split, task.kind, task.instruction, ToolWorldSource(world), judge, task.tools)


def _result(task: LiveTask, outcome: EpisodeOutcome) -> EpisodeResult:
    solved, reason = task.judge(outcome)
    return EpisodeResult(
        task_id=task.id,
        split=task.split,
        kind=task.kind,
        solved=solved,
        reason=reason,
        stop_reason=outcome.stop_reason.value,
        steps=outcome.steps,
        calls=len(outcome.calls),
        prefill_tokens=outcome.prefill_tokens,
        generated_tokens=outcome.generated_tokens,
        trajectory=outcome.trajectory,
        instruction=task.instruction,
        branches=outcome.branches,
    )
