"""The thread that owns the engine: answers are generated together, and taken on while others are generated.

Other threads put what they want into an inbox; whatever comes there interrupts the engine between two tokens, so that
a new request is admitted and one that nobody waits for is dropped at once. Calls of the server's own tools are made in
the server's event loop meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from alpha_umi.agent.limits import StopReason
from alpha_umi.agent.steps import Speak, UseTools
from alpha_umi.engines.base import Engine
from alpha_umi.engines.stream import Stream
from alpha_umi.serving.errors import ApiError, busy, closing, context_too_long, internal
from alpha_umi.serving.job import Begun, Failed, Job
from alpha_umi.serving.limits import ServerLimits
from alpha_umi.serving.memory import Memory
from alpha_umi.serving.metrics import Metrics
from alpha_umi.serving.outline import outline
from alpha_umi.tools import Approval, Observation
from alpha_umi.tools.execution import perform, prepare
from alpha_umi.tools.schema import SchemaSource

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 30.0


class Worker:
    """Works on jobs, many at a time.

    Args:
        engine: What generates; nobody else may use it.
        limits: How many jobs there may be.
        metrics: Is told what they took.
        approval: Which calls of the server's own tools are made.
    """

    def __init__(self, engine: Engine, limits: ServerLimits, metrics: Metrics, approval: Approval) -> None:
        self._engine, self._limits, self._metrics, self._approval = engine, limits, metrics, approval
        self._memory = Memory(engine, limits.remembered, limits.remembered_tokens)
        self._inbox = queue.SimpleQueue[Callable[[], None]]()
        self._waiting = deque[Job]()
        self._live: list[Job] = []
        self._stream = Stream[Job](engine)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._open = 0
        self._closing = self._freed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    # -- for other threads

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to work; tools are called in this event loop."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Ends all work; jobs that are left fail. Returns when the engine is free, or doesn't come back."""
        self._closing = True
        self._inbox.put(lambda: None)
        self._thread.join(_PATIENCE_SECONDS)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Takes jobs on, all of them or none.

        Raises:
            ApiError: 429, there is no room; 503, the server is being stopped.
        """
        if self._closing:
            raise closing()
        with self._lock:
            if self._open + len(jobs) > self._limits.concurrency + self._limits.queue:
                raise busy(self._limits.retry_after)
            self._open += len(jobs)
        self._inbox.put(lambda: self._waiting.extend(jobs))

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Nobody waits for these any more."""
        for job in jobs:
            job.cancel()
        self._inbox.put(lambda: None)

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """Jobs that are worked on."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return max(self._open - len(self._live), 0)

    @property
    def remembered(self) -> int:
        """Conversations that are kept."""
        return len(self._memory)

    # -- the thread

    def _work(self) -> None:
        try:
            while True:
                self._read_inbox()
                if self._closing:
                    break
                self._step()
        finally:  # whatever happened, nobody is to wait for an answer any more
            self._closing = True
            self._fail_all(closing())

    def _step(self) -> None:
        self._drop_cancelled()
        self._admit()
        try:
            self._generate()
        except Exception:
            _log.exception("the engine failed")
            self._fail_all(internal())
        for job in tuple(self._live):
            self._guarded(job, self._use_tools)

    def _read_inbox(self) -> None:
        """Does what others want; waits for that if there is nothing else to do."""
        at_work = self._freed or any(job.speaking or job.wish is not None for job in self._live)
        if not at_work:
            self._inbox.get()()
        while not self._inbox.empty():
            self._inbox.get()()

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._live if job.cancelled]:
            job.close()
            self._forget(job)
            self._metrics.count("answers_total", labels=f'reason="{StopReason.CANCELLED}"')
        gone = [job for job in self._waiting if job.cancelled]
        if gone:
            self._waiting = deque(job for job in self._waiting if not job.cancelled)
            self._ended(len(gone))

    def _admit(self) -> None:
        self._freed = False
        held: list[Job] = []
        while self._waiting and len(self._live) < self._limits.concurrency:
            job = self._waiting.popleft()
            if any(job.session == other.session for other in self._live):
                held.append(job)  # the same seed: one after the other, so that both are the same
                continue
            self._live.append(job)
            self._guarded(job, self._begin)
        self._waiting.extendleft(reversed(held))

    def _begin(self, job: Job) -> None:
        asked = job.asked
        source = job.own_source or SchemaSource(asked.tools)
        job.begin(self._engine, self._memory.resume(job.session, source, source.tools, asked.messages))
        if job.too_long:
            raise context_too_long(job.prompt_tokens, self._engine.context)
        job.tell(Begun())
        self._end_if_over(job)

    def _generate(self) -> None:
        """Asks for all spans that are wanted, and hands out those that are complete."""
        for job in self._live:
            if isinstance(job.wish, Speak) and not job.speaking:
                self._stream.ask(job, job.request(job.wish), job.wish.sampling)
                job.speaking = True
        for job, generation in self._stream.collect(lambda: not self._inbox.empty()):
            job.speaking = False
            job.send(generation)
            self._end_if_over(job)

    def _end_if_over(self, job: Job) -> None:
        if job.reason is None:
            return
        answer, turn, episode = job.answer(), job.turn(), job.run.episode
        if turn is not None:
            self._memory.keep(episode.tools or (), job.asked.messages, turn, episode)
        self._forget(job)
        for name, amount in (
            ("prompt_tokens_total", answer.prompt_tokens), ("cached_tokens_total", answer.cached_tokens),
            ("prefill_tokens_total", answer.prefill_tokens), ("generated_tokens_total", answer.generated_tokens),
        ):  # fmt: skip
            self._metrics.count(name, amount)
        self._metrics.count("answers_total", labels=f'reason="{answer.stop_reason}"')
        job.tell(answer)

    def _forget(self, job: Job) -> None:
        """Lets go of a job that is over."""
        self._stream.drop(job)
        self._engine.forget([job.session])
        self._live.remove(job)
        self._freed = True
        self._ended(1)

    def _ended(self, count: int) -> None:
        with self._lock:
            self._open -= count

    # -- tools

    def _use_tools(self, job: Job) -> None:
        """Makes the calls that the run wants, or hands them out; waits for none."""
        wish = job.wish
        if not isinstance(wish, UseTools):
            return
        own = job.own_source
        if own is None:
            tools = [outline(tool) for tool in job.asked.callable]
            observed = prepare(job.run.episode.source, wish.calls, self._approval, tools)
            self._observe(job, [one for one in observed if isinstance(one, Observation)])
            return
        prepared = prepare(own, wish.calls, self._approval, job.run.episode.tools, repair=True)
        job.wish = None
        assert self._loop is not None
        made = asyncio.run_coroutine_threadsafe(
            perform(
                own, prepared, timeout=wish.timeout, seconds=wish.seconds, result_bytes=job.run.limits.tool_bytes,
                cancelled=job.run.cancelled,
            ),
            self._loop,
        )  # fmt: skip
        made.add_done_callback(
            lambda done: self._inbox.put(lambda: self._guarded(job, lambda job: self._made(job, done)))
        )

    def _made(self, job: Job, done: Future[list[Observation]]) -> None:
        if job in self._live:
            self._observe(job, done.result())

    def _observe(self, job: Job, observations: Sequence[Observation]) -> None:
        job.send(observations)
        self._end_if_over(job)

    # -- failures

    def _guarded(self, job: Job, act: Callable[[Job], None]) -> None:
        """Does something for a job; what goes wrong is that job's alone."""
        try:
            act(job)
        except ApiError as error:
            self._fail(job, error)
        except Exception:
            _log.exception("an answer failed")
            self._fail(job, internal())

    def _fail(self, job: Job, error: ApiError) -> None:
        if job in self._live:
            self._forget(job)
        job.tell(Failed(error))

    def _fail_all(self, error: ApiError) -> None:
        for job in tuple(self._live):
            self._fail(job, error)
        self._stream = Stream[Job](self._engine)
        if self._closing:
            self._read_left()
            for job in self._waiting:
                job.tell(Failed(error))

    def _read_left(self) -> None:
        while not self._inbox.empty():
            self._inbox.get()()
