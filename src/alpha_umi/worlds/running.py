"""Runs a world's tasks: many at a time, each finished one at once on disk, in any split of the work the same results.

A task's session is its place in its set, and sampling is decided by session and position, so that it makes no
difference which other tasks are run beside it, before it, or in another process.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alpha_umi.agent import ChosenStrategy, Episode, EpisodeOutcome, Limits, run_episodes
from alpha_umi.engines.base import Engine
from alpha_umi.errors import UserError
from alpha_umi.evaluation.kept import OnProgress
from alpha_umi.evaluation.live_run import NO_CLOCK
from alpha_umi.tools import Approval, ToolSource
from alpha_umi.tools.base import close
from alpha_umi.trajectory import Message, Tool
from alpha_umi.worlds.episodes import EpisodeStore, Figures, Finished


@dataclass(frozen=True)
class WorldTask:
    """What an agent is to do, and where.

    Attributes:
        id: The query's name, unique in its set.
        number: Its place in its set.
        messages: The conversation it begins with.
        open: Opens the tools, in the event loop of the run; they are closed when the episode is over.
        tools: What the agent is shown; None takes all tools of the source.
    """

    id: str
    number: int
    messages: tuple[Message, ...]
    open: Callable[[], Coroutine[Any, Any, ToolSource]]
    tools: tuple[Tool, ...] | None = None


async def _nothing() -> None:
    """There is nothing to close."""


@dataclass(frozen=True)
class World:
    """Sets of tasks, and what they share.

    Attributes:
        name: As on the command line.
        sets: The tasks by set.
        settings: What of the world decides the results, by name.
        limits: Makes of the strategy's limits those that hold here.
        aclose: Frees what the tasks share.
    """

    name: str
    sets: Mapping[str, Sequence[WorldTask]]
    settings: Mapping[str, str] = field(default_factory=dict)
    limits: Callable[[Limits], Limits] = lambda limits: replace(limits, seconds=NO_CLOCK)
    aclose: Callable[[], Coroutine[Any, Any, None]] = _nothing

    def of(self, sets: Mapping[str, Sequence[WorldTask]]) -> World:
        """The same world with these tasks."""
        return replace(self, sets=sets)


@dataclass(frozen=True)
class Shard:
    """Every ``of``-th task of each set, from the ``index``-th on (from 1)."""

    index: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str) -> Shard:
        """A shard as typed, ``2/8``.

        Raises:
            UserError: It is none.
        """
        index, _, of = text.partition("/")
        if not (index.isdecimal() and of.isdecimal() and 1 <= int(index) <= int(of)):
            raise UserError(f"--shard {text}: give I/N, the I-th of N parts, as 1/4 to 4/4")
        return cls(int(index), int(of))

    def takes(self, task: WorldTask) -> bool:
        """Whether a task is in it."""
        return task.number % self.of == self.index - 1


def run_world(
    engine: Engine,
    world: World,
    store: EpisodeStore,
    chosen: ChosenStrategy,
    *,
    concurrency: int = 64,
    shard: Shard | None = None,
    approval: Approval | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> None:
    """Runs the tasks of a shard whose episodes are not in the store, set by set, and exports each set.

    Args:
        engine: What generates.
        world: What is to be done.
        store: Gets every episode as it ends.
        chosen: Strategy, limits and sampling; there is no clock, as results must not depend on how busy a machine is.
        concurrency: Episodes at one time.
        shard: Which tasks; None is all.
        approval: Which calls are made; None refuses those that change something.
        on_progress: Told (what, done, in all).

    Raises:
        UserError: What the tools are behind can't be reached; finished episodes are kept.
    """
    shard = shard or Shard()
    with asyncio.Runner() as runner:
        try:
            for split, tasks in world.sets.items():
                mine, done = [task for task in tasks if shard.takes(task)], store.done(split)
                waiting = [task for task in mine if task.id not in done]
                try:
                    outcomes = _outcomes(engine, world, waiting, chosen, concurrency, approval, runner)
                    for count, (task, outcome) in enumerate(outcomes, len(mine) - len(waiting) + 1):
                        store.keep(Finished(split, task.id, task.number, _figures(outcome), outcome.trajectory))
                        on_progress(f"live {split}", count, len(mine))
                finally:
                    store.export(split)
        finally:
            runner.run(world.aclose())


def _outcomes(
    engine: Engine, world: World, tasks: Sequence[WorldTask], chosen: ChosenStrategy, concurrency: int,
    approval: Approval | None, runner: asyncio.Runner,
) -> Iterator[tuple[WorldTask, EpisodeOutcome]]:  # fmt: skip
    opened: dict[int, tuple[WorldTask, ToolSource]] = {}

    def episodes() -> Iterator[Episode]:
        for task in tasks:
            source = runner.run(task.open())
            opened[task.number] = task, source
            yield Episode(task.number, source, list(task.messages), task.tools)

    try:
        for outcome in run_episodes(
            engine, episodes(), world.limits(chosen.limits), chosen.sampling, concurrency, approval=approval,
            runner=runner, strategy=chosen.strategy,
        ):  # fmt: skip
            task, source = opened.pop(outcome.session)
            runner.run(close(source))
            yield task, outcome
    finally:
        for _, source in opened.values():
            runner.run(close(source))


def _figures(outcome: EpisodeOutcome) -> Figures:
    failed = Counter(call.error for call in outcome.calls if call.error is not None)
    return Figures(
        outcome.stop_reason.value, outcome.steps, len(outcome.calls), dict(sorted(failed.items())),
        outcome.generated_tokens, outcome.prefill_tokens, outcome.branches,
    )  # fmt: skip
