"""Live runs: an engine works on tasks whose tools answer, and a checker says whether they are solved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from alpha_umi.agent import Episode, EpisodeOutcome, Limits, React, StopReason, Strategy, Trace, run_episodes
from alpha_umi.engines.base import Engine, Sampling
from alpha_umi.evaluation.live import EpisodeResult
from alpha_umi.tools import ToolWorldSource
from alpha_umi.toolworld import Outcome, Task, World, check
from alpha_umi.trajectory import UserMessage

NO_CLOCK = float("inf")
"""What is measured must not depend on how busy the machine is. Steps and tokens still end every run."""


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
    """Runs every task in a world of its own and checks it; results in the order of the tasks.

    Args:
        engine: What generates; its sessions 0 and on are used and given up again.
        tasks: From `toolworld.make_tasks`.
        limits: What each episode may take; None takes the strategy's, without a clock.
        sampling: How tokens are chosen.
        concurrency: Episodes at one time.
        on_progress: Told (episodes done, episodes in all).
        strategy: How each episode is searched; None is ReACT.
        trace: Is told every step; a run's session is the number of its task.
    """
    strategy = strategy or React()
    limits = limits or replace(strategy.limits(), seconds=NO_CLOCK)
    worlds: dict[int, World] = {}

    def episodes() -> Iterator[Episode]:
        for number, task in enumerate(tasks):
            worlds[number] = World(task)
            yield Episode(number, ToolWorldSource(worlds[number]), [UserMessage(task.instruction)], task.tools)

    results: dict[int, EpisodeResult] = {}
    for outcome in run_episodes(engine, episodes(), limits, sampling, concurrency, strategy=strategy, trace=trace):
        number = outcome.session
        results[number] = _judged(tasks[number], worlds.pop(number), outcome)
        if on_progress is not None:
            on_progress(len(results), len(tasks))
    return [results[number] for number in range(len(tasks))]


def _judged(task: Task, world: World, outcome: EpisodeOutcome) -> EpisodeResult:
    verdict = check(task, world, Outcome(outcome.answer, outcome.stop_reason is StopReason.GAVE_UP))
    return EpisodeResult(
        task_id=task.id,
        split=task.split,
        kind=task.kind,
        solved=verdict.solved,
        reason=verdict.reason,
        stop_reason=outcome.stop_reason.value,
        steps=outcome.steps,
        calls=len(outcome.calls),
        prefill_tokens=outcome.prefill_tokens,
        generated_tokens=outcome.generated_tokens,
        trajectory=outcome.trajectory,
        instruction=task.instruction,
        branches=outcome.branches,
    )
