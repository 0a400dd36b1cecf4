"""Running episodes: many at a time, each by its strategy.

An episode's run is a generator of wishes (`alpha_umi.agent.run`). Spans are asked of the engine as they are wanted and
come as they are complete (`alpha_umi.engines.stream`), all tool calls of a time are one `asyncio.gather`, and as an
episode ends the next is admitted.

Calls of tools that nobody here executes end the run: they are handed out, and `Episode.observe` takes what came of
them, so that the episode can go on.

What a model writes wrong becomes an observation for its planner. What ends a run is always a named `StopReason`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from alpha_umi.agent.episode import Episode
from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.agent.outcome import EpisodeOutcome, OnEvent
from alpha_umi.agent.run import Run
from alpha_umi.agent.steps import Reply, Speak, Steps, UseTools, Wish
from alpha_umi.agent.strategies import React, Strategy
from alpha_umi.agent.trace import Trace
from alpha_umi.engines.base import Engine, Sampling
from alpha_umi.engines.stream import Stream
from alpha_umi.tools import Approval, Observation
from alpha_umi.tools.execution import Prepared, perform, prepare


@dataclass
class _Live:
    """An episode that is being run, and what it wants next."""

    run: Run
    strategy: str
    steps: Steps
    wish: Wish | None = None
    reason: StopReason | None = None

    @classmethod
    def begin(cls, run: Run, strategy: Strategy) -> _Live:
        """Runs it up to its first wish."""
        live = cls(run, strategy.name, strategy.search(run))
        live.send(None)
        return live

    def send(self, reply: Reply | None) -> None:
        """Gives it what it wanted."""
        try:
            self.wish = self.steps.send(reply)
        except StopIteration as end:
            self.wish, self.reason = None, end.value

    def outcome(self, reason: StopReason) -> EpisodeOutcome:
        """Closes the run."""
        run = self.run
        run.close(reason)
        return EpisodeOutcome(
            run.episode.session, self.strategy, reason, run.answer, run.refusal, run.episode.trajectory(),
            run.transcript, run.steps, tuple(run.calls), run.prefill, run.generated, run.undecided, run.cut,
            run.branches, time.monotonic() - run.started,
        )  # fmt: skip


def run_episodes(
    engine: Engine,
    episodes: Iterable[Episode],
    limits: Limits | None = None,
    sampling: Sampling | None = None,
    concurrency: int = 64,
    on_event: OnEvent | None = None,
    *,
    cancelled: Callable[[], bool] | None = None,
    keep: bool = False,
    approval: Approval | None = None,
    repair: bool = False,
    runner: asyncio.Runner | None = None,
    strategy: Strategy | None = None,
    trace: Trace | None = None,
) -> Iterator[EpisodeOutcome]:
    """Runs episodes, many at a time, and yields each outcome as it comes.

    Spans and tools take turns: while tools run, nothing is generated, so a slow tool holds up the batch (for at most
    its time-out).

    Args:
        engine: What generates.
        episodes: Taken one by one as others end; they may be a generator.
        limits: What each may take; None takes the strategy's.
        sampling: How tokens are chosen; spans are limited by ``limits``, not by its ``max_new_tokens``.
        concurrency: Episodes at one time.
        on_event: Told what happens, as it happens.
        cancelled: Asked between spans and while tools are called; once it says so, calls are stopped, every episode
            ends as cancelled and no other is begun.
        keep: Leave the sessions in the engine, for `Episode.follow_up`.
        approval: Which calls have to be confirmed, and by whom; None refuses those that write.
        repair: Make what a call that is wrong was to be, where that is plain (`alpha_umi.tools.repair`); the trajectory
            keeps what was written, and what was made is recorded beside its observation.
        runner: The event loop that the tool sources were opened in, if they belong to one; None makes one for the run.
        strategy: How each goes about it; None is ReACT.
        trace: Is told every step, as it is taken.

    Raises:
        UserError: The strategy chooses by probabilities, and the engine gives none.
        Exception: Whatever is raised by a tool source that is no `ToolError`.
    """
    strategy, approval = strategy or React(), approval or Approval()
    limits, sampling = limits or strategy.limits(), replace(sampling or Sampling(), logprobs=strategy.scored)
    waiting = iter(episodes)
    live: list[_Live] = []
    stream = Stream[_Live](engine)
    try:
        with contextlib.nullcontext(runner) if runner is not None else asyncio.Runner() as loop:
            while True:
                for episode in _admitted(waiting, concurrency - len(live), cancelled):
                    run = Run(episode, engine.renderer, engine.context, limits, sampling, on_event, cancelled, trace)
                    if trace is not None:
                        trace.begin(episode.session, strategy.name, episode.trajectory())
                    live.append(_Live.begin(run, strategy))
                if not live:
                    return
                ended = [entry for entry in live if entry.reason is not None]
                live = [entry for entry in live if entry.reason is None]
                if ended and not keep:
                    engine.forget([entry.run.episode.session for entry in ended])
                for entry in ended:
                    assert entry.reason is not None
                    yield entry.outcome(entry.reason)
                _generate(stream, live)
                _use_tools(loop, live, approval, repair)
    finally:
        if not keep:
            engine.forget([entry.run.episode.session for entry in live])


def run_one(
    engine: Engine,
    episode: Episode,
    limits: Limits | None = None,
    sampling: Sampling | None = None,
    on_event: OnEvent | None = None,
    *,
    cancelled: Callable[[], bool] | None = None,
    keep: bool = False,
    approval: Approval | None = None,
    repair: bool = False,
    runner: asyncio.Runner | None = None,
    strategy: Strategy | None = None,
    trace: Trace | None = None,
) -> EpisodeOutcome:
    """Runs one episode; see `run_episodes`."""
    (outcome,) = run_episodes(
        engine, [episode], limits, sampling, 1, on_event, cancelled=cancelled, keep=keep, approval=approval,
        repair=repair, runner=runner, strategy=strategy, trace=trace,
    )  # fmt: skip
    return outcome


def _admitted(waiting: Iterator[Episode], room: int, cancelled: Callable[[], bool] | None) -> Iterator[Episode]:
    if room > 0 and not (cancelled is not None and cancelled()):
        yield from itertools.islice(waiting, room)


def _generate(stream: Stream[_Live], live: Sequence[_Live]) -> None:
    """Asks for all spans that are wanted, and hands out those that are complete."""
    for entry in live:
        if isinstance(entry.wish, Speak):
            stream.ask(entry, entry.wish.request, entry.wish.sampling)
            entry.wish = None
    for entry, generation in stream.collect():
        entry.send(generation)


def _use_tools(runner: asyncio.Runner, live: Sequence[_Live], approval: Approval, repair: bool) -> None:
    """All calls that are wanted now: confirmed one after another, then made side by side."""
    wanted = [(entry, entry.wish) for entry in live if isinstance(entry.wish, UseTools)]
    if not wanted:
        return
    prepared = [_prepare(entry.run, wish, approval, repair) for entry, wish in wanted]

    async def call_all() -> list[list[Observation]]:
        asked = zip(wanted, prepared, strict=True)
        tasks = [asyncio.ensure_future(_perform(entry.run, wish, calls)) for (entry, wish), calls in asked]
        try:
            return await asyncio.gather(*tasks)
        finally:  # where one of them raised, the others don't go on
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    for (entry, _), observations in zip(wanted, runner.run(call_all()), strict=True):
        entry.send(observations)


def _prepare(run: Run, wish: UseTools, approval: Approval, repair: bool) -> list[Prepared]:
    begun = time.monotonic()
    prepared = prepare(run.episode.source, wish.calls, approval, run.episode.tools, repair=repair)
    run.pause(time.monotonic() - begun)
    return prepared


async def _perform(run: Run, wish: UseTools, calls: Sequence[Prepared]) -> list[Observation]:
    return await perform(
        run.episode.source, calls, timeout=wish.timeout, seconds=wish.seconds, result_bytes=run.limits.tool_bytes,
        cancelled=run.cancelled,
    )  # fmt: skip
