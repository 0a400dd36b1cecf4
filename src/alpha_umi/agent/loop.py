"""ReACT over one transcript: planner, caller, tools, planner again, and at last the summarizer.

An episode is a generator. It yields what it wants, a span (`Speak`) or tool calls (`UseTools`), and is sent the result;
it never waits for anything itself. `run_episodes` drives many of them: all spans that are wanted at one time are one
call of the engine, all tool calls one `asyncio.gather`, and as an episode ends the next is admitted.

Calls of tools that nobody here executes end the run: they are handed out, and `Episode.observe` takes what came of
them, so that the episode can go on.

What a model writes wrong becomes an observation for its planner. What ends a run is always a named `StopReason`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.engines.base import Conversation, Engine, Generation, Request, Sampling
from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools import Approval, Observation, ToolSource
from alpha_umi.tools.execute import RESULT_BYTES, Prepared, perform, prepare
from alpha_umi.tools.text import observable
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    Message,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)
from alpha_umi.transcript import Renderer, Transcript, Voice, parse_calls, parse_planner, parse_single

EXTRA = "alpha_umi"
NO_REASON = "This can't be done with the tools that are available."
"""What the user is told if the planner gives up without a word."""

EventKind = Literal["rationale", "decision", "call", "observation", "answer", "refusal", "stop"]


@dataclass(frozen=True)
class Event:
    """Something happened in an episode: for a live display."""

    kind: EventKind
    text: str
    session: int


OnEvent = Callable[[Event], None]


@dataclass
class Episode:
    """A conversation and where its tools are; it can be run, followed up and run again.

    Attributes:
        session: Names it for the engine; no two live episodes share one.
        source: Makes the calls.
        messages: The conversation so far; what the agent does is appended.
        tools: What the agent is shown; None takes all tools of the source.
        transcript: The same as tokens, as the models wrote and read them; made on the first run.
    """

    session: int
    source: ToolSource
    messages: list[Message]
    tools: tuple[Tool, ...] | None = None
    transcript: Transcript | None = None
    _renderer: Renderer | None = field(default=None, repr=False)
    _held: dict[str, str] = field(default_factory=dict, repr=False)

    def open(self, renderer: Renderer) -> Transcript:
        """The transcript, rendered from the messages the first time."""
        if self.tools is None:
            self.tools = self.source.tools
        if self.transcript is None:
            self._renderer = renderer
            self.transcript = renderer.render(self.trajectory())
        return self.transcript

    def follow_up(self, text: str) -> Episode:
        """Appends what the user says next; the transcript only grows.

        Raises:
            UserError: Calls were handed out and are not answered.
        """
        if self.client_calls:
            ids = ", ".join(call.id for call in self.client_calls)
            raise UserError(f"the calls {ids} are open; answer them with Episode.observe first")
        message = UserMessage(text)
        self.messages.append(message)
        if self.transcript is not None and self._renderer is not None:
            for piece in self._renderer.message(message):
                self.transcript.append(piece, len(self.messages) - 1)
        return self

    @property
    def client_calls(self) -> tuple[ToolCall, ...]:
        """The calls that were handed out and are not answered yet, in call order."""
        last = self.messages[-1] if self.messages else None
        calls = last.tool_calls if isinstance(last, AssistantMessage) else ()
        return tuple(call for call in calls if call.id not in self._held)

    def hand_out(self, held: Mapping[str, str]) -> None:
        """Ends the turn with calls for whoever runs the agent; what came of its other calls (by id) waits for them."""
        self._held = dict(held)

    def observe(self, results: Mapping[str, str], limit: int = RESULT_BYTES) -> Episode:
        """Answers all calls that were handed out, so that the episode can be run on.

        Args:
            results: By a call's id, what came of it; this is text from outside, like any tool's.
            limit: Bytes of one; of a longer one the head and the tail are kept.

        Raises:
            UserError: A call is not answered, or something else is.
        """
        wanted = {call.id for call in self.client_calls}
        if results.keys() != wanted:
            ids = ", ".join(sorted(wanted)) or "none"
            raise UserError(
                f"results for {', '.join(sorted(results)) or 'no call'} were given; the open calls are {ids}"
            )
        last = self.messages[-1]
        assert isinstance(last, AssistantMessage) or not wanted
        texts = self._held | {call_id: observable(text, limit) for call_id, text in results.items()}
        self._held = {}
        for call in last.tool_calls if isinstance(last, AssistantMessage) else ():
            self.append_observation(call, texts[call.id])
        return self

    def append_observation(self, call: ToolCall, text: str) -> None:
        """Appends what came of a call, to the messages and to the transcript."""
        if self.transcript is not None and self._renderer is not None:
            self.transcript.append(self._renderer.observation(text), len(self.messages))
        self.messages.append(ToolMessage(call.id, text))

    def trajectory(self) -> Trajectory:
        """The record of the conversation so far."""
        return Trajectory(self.source.tools if self.tools is None else self.tools, tuple(self.messages))


@dataclass(frozen=True)
class MadeCall:
    """A call of the run and how it ended.

    Attributes:
        call: As the caller wrote it.
        error: Kind of its failure, or None.
        client: It was not made but handed out.
    """

    call: ToolCall
    error: str | None
    client: bool = False

    def to_json(self) -> dict[str, Any]:
        """Arguments as an object, or the text that was written if it is none; of a call handed out its id too."""
        arguments = self.call.parsed()
        made = {
            "name": self.call.name,
            "arguments": self.call.arguments if arguments is None else arguments,
            "error": self.error,
        }
        return made | {"client": True, "id": self.call.id} if self.client else made


@dataclass(frozen=True)
class EpisodeOutcome:
    """How a run ended.

    Attributes:
        session: Of the episode.
        stop_reason: Why it ended.
        answer: The summarizer's answer, if there is one.
        refusal: What the user is told instead, if the planner gave up.
        trajectory: The whole conversation; every call is answered, except in a last turn that was handed out.
        transcript: The same as tokens.
        steps: Planner decisions in this run.
        calls: Calls in this run, in order.
        prefill_tokens: Tokens the models read (computed, not taken from a cache).
        generated_tokens: Tokens the models wrote.
        undecided: Planner spans without a decision (they count as Caller).
        cut: Spans that were cut by a limit.
        seconds: Wall-clock time.
    """

    session: int
    stop_reason: StopReason
    answer: str | None
    refusal: str | None
    trajectory: Trajectory
    transcript: Transcript
    steps: int
    calls: tuple[MadeCall, ...]
    prefill_tokens: int
    generated_tokens: int
    undecided: int
    cut: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """What ``umi run --json`` prints."""
        return {
            "answer": self.answer,
            "stop_reason": self.stop_reason.value,
            "calls": [call.to_json() for call in self.calls],
            "steps": self.steps,
            "tokens": {"prefill": self.prefill_tokens, "generated": self.generated_tokens},
            "trajectory": json.loads(self.trajectory.to_json()),
        }


# ---- one episode ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speak:
    """An episode wants a span."""

    request: Request


@dataclass(frozen=True)
class UseTools:
    """An episode wants tools called, each within ``timeout`` and all of them within ``seconds``."""

    calls: tuple[ToolCall, ...]
    timeout: float
    seconds: float


Wish = Speak | UseTools
Reply = Generation | Sequence[Observation]
Steps = Generator[Wish, Any, StopReason]


class _Run:
    """One run of an episode: the state machine and what it has counted."""

    def __init__(
        self,
        episode: Episode,
        renderer: Renderer,
        context: int,
        limits: Limits,
        on_event: OnEvent | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self.episode = episode
        self.transcript = episode.open(renderer)
        self._renderer = renderer
        self._context = context
        self.limits = limits
        self._on_event = on_event
        self.cancelled = cancelled
        self._started = time.monotonic()
        self._first_call = sum(len(m.tool_calls) for m in episode.messages if isinstance(m, AssistantMessage))
        self.steps = 0
        self.calls: list[MadeCall] = []
        self.prefill = self.generated = self.undecided = self.cut = 0
        self.answer: str | None = None
        self.refusal: str | None = None

    def pause(self, seconds: float) -> None:
        """Doesn't count time in which the run waited for a person."""
        self._started += seconds

    def outcome(self, reason: StopReason) -> EpisodeOutcome:
        """Closes the run."""
        self._tell("stop", reason.value)
        return EpisodeOutcome(
            self.episode.session, reason, self.answer, self.refusal, self.episode.trajectory(), self.transcript,
            self.steps, tuple(self.calls), self.prefill, self.generated, self.undecided, self.cut,
            time.monotonic() - self._started,
        )  # fmt: skip

    def work(self) -> Steps:
        """The episode itself; returns why it ended."""
        turn = self._single_turn if self._renderer.voices == "single" else self._roles_turn
        while True:
            if self.steps >= self.limits.steps:
                return StopReason.STEP_LIMIT
            reason = yield from turn()
            if reason is not None:
                return reason

    def _roles_turn(self) -> Generator[Wish, Any, StopReason | None]:
        reason, text = yield from self._speak("planner")
        if reason is not None:
            return reason
        self.steps += 1
        rationale, decision = parse_planner(text)
        self._tell("rationale", rationale)
        self._tell("decision", decision.value if decision is not None else "")
        extra: dict[str, Any] = {}
        if decision is None:
            self.undecided += 1
            decision, extra = Decision.CALL, {EXTRA: {"undecided": True}}
        if decision is Decision.GIVE_UP:
            return self._give_up(rationale, rationale.strip() or NO_REASON)
        reason, text = yield from self._speak("caller" if decision is Decision.CALL else "summarizer", text)
        if reason is not None:
            # the planner has spoken: its turn is kept, without what did not follow
            self._append(AssistantMessage(rationale, extra=extra))
            return reason
        if decision is Decision.FINISH:
            return self._answer(rationale, text)
        calls = parse_calls(text, self._first_call + len(self.calls))
        return (yield from self._call(AssistantMessage(rationale, calls, extra=extra)))

    def _single_turn(self) -> Generator[Wish, Any, StopReason | None]:
        reason, text = yield from self._speak("assistant")
        if reason is not None:
            return reason
        self.steps += 1
        turn = parse_single(text, self._first_call + len(self.calls))
        self._tell("rationale", (turn.reasoning_content or "") if turn.decision is not None else text)
        self._tell("decision", turn.decision.value if turn.decision is not None else "")
        if turn.content is not None:
            return self._answer(turn.reasoning_content, turn.content)
        if turn.refusal is not None:
            return self._give_up(turn.reasoning_content, turn.refusal.strip() or NO_REASON)
        if turn.decision is None:
            # nobody else could make a call of it: the whole text is one that can't be read
            self.undecided += 1
            call = ToolCall(f"call_{self._first_call + len(self.calls)}", "", text, malformed=True)
            turn = AssistantMessage(tool_calls=(call,), extra={EXTRA: {"undecided": True}})
        return (yield from self._call(turn))

    def _speak(
        self, voice: Voice, planner_text: str | None = None
    ) -> Generator[Wish, Any, tuple[StopReason | None, str]]:
        """A span of a voice, appended as it was generated; or why there is none."""
        reason = self._over()
        if reason is not None:
            return reason, ""
        prompt = len(self.transcript.ids) + len(self._renderer.header(voice))
        if prompt + self.limits.least_new_tokens > self._context:
            return StopReason.CONTEXT_LIMIT, ""
        most = min(self.limits.span(voice), self.limits.tokens - self.generated)
        so_far = Conversation(self.episode.tools or (), tuple(self.episode.messages), planner_text)
        made: Generation = yield Speak(Request(self.episode.session, voice, tuple(self.transcript.ids), most, so_far))
        self.prefill += made.prefill_tokens
        self.generated += len(made.ids)
        self.cut += not made.finished
        self.transcript.append(self._renderer.written(voice, made.ids), len(self.episode.messages))
        return None, self._renderer.decode(made.ids)

    def _over(self) -> StopReason | None:
        if self.cancelled is not None and self.cancelled():
            return StopReason.CANCELLED
        if self._left() <= 0:
            return StopReason.TIME_LIMIT
        return StopReason.TOKEN_LIMIT if self.generated >= self.limits.tokens else None

    def _left(self) -> float:
        return self.limits.seconds - (time.monotonic() - self._started)

    def _call(self, turn: AssistantMessage) -> Generator[Wish, Any, StopReason | None]:
        """Makes the calls of a turn and appends what came of them, in call order; or hands calls out."""
        self._append(turn)
        for call in turn.tool_calls:
            self._tell("call", call.arguments if call.malformed else f"{call.name}({call.arguments})")
        reason = self._over()
        if reason is None or reason is StopReason.TOKEN_LIMIT:
            seconds = max(self._left(), 0.001)
            observations: Sequence[Observation] = yield UseTools(turn.tool_calls, self.limits.tool_timeout, seconds)
        else:
            stopped = ToolError("not_run", f"the run was stopped ({reason.value}) before the call was made")
            observations = [Observation.failure(stopped)] * len(turn.tool_calls)
        answered = list(zip(turn.tool_calls, observations, strict=True))
        self.calls += [MadeCall(call, made.error, made.client) for call, made in answered]
        if any(made.client for made in observations):
            self.episode.hand_out({call.id: made.text for call, made in answered if not made.client})
            return StopReason.CLIENT_CALLS
        for call, made in answered:
            self.episode.append_observation(call, made.text)
            self._tell("observation", made.text)
        return None

    def _answer(self, rationale: str | None, text: str) -> StopReason:
        self.answer = text
        self._append(AssistantMessage(rationale, content=text))
        self._tell("answer", text)
        return StopReason.ANSWERED

    def _give_up(self, rationale: str | None, refusal: str) -> StopReason:
        self.refusal = refusal
        self._append(AssistantMessage(rationale, refusal=refusal))
        self._tell("refusal", refusal)
        return StopReason.GAVE_UP

    def _append(self, message: Message) -> None:
        self.episode.messages.append(message)

    def _tell(self, kind: EventKind, text: str) -> None:
        if self._on_event is not None:
            self._on_event(Event(kind, text, self.episode.session))


# ---- many episodes --------------------------------------------------------------------------------------------------


@dataclass
class _Live:
    """An episode that is being run, and what it wants next."""

    run: _Run
    steps: Steps
    wish: Wish | None = None
    reason: StopReason | None = None

    def send(self, reply: Reply | None) -> None:
        """Gives it what it wanted."""
        try:
            self.wish = self.steps.send(reply)
        except StopIteration as end:
            self.wish, self.reason = None, end.value


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
    runner: asyncio.Runner | None = None,
) -> Iterator[EpisodeOutcome]:
    """Runs episodes, many at a time, and yields each outcome as it comes.

    Spans and tools take turns: while tools run, nothing is generated, so a slow tool holds up the batch (for at most
    its time-out).

    Args:
        engine: What generates.
        episodes: Taken one by one as others end; they may be a generator.
        limits: What each may take.
        sampling: How tokens are chosen; spans are limited by ``limits``, not by its ``max_new_tokens``.
        concurrency: Episodes at one time.
        on_event: Told what happens, as it happens.
        cancelled: Asked between spans and while tools are called; once it says so, calls are stopped, every episode
            ends as cancelled and no other is begun.
        keep: Leave the sessions in the engine, for `Episode.follow_up`.
        approval: Which calls have to be confirmed, and by whom; None refuses those that write.
        runner: The event loop that the tool sources were opened in, if they belong to one; None makes one for the run.

    Raises:
        Exception: Whatever is raised by a tool source that is no `ToolError`.
    """
    limits, sampling, approval = limits or Limits(), sampling or Sampling(), approval or Approval()
    waiting = iter(episodes)
    live: list[_Live] = []
    try:
        with contextlib.nullcontext(runner) if runner is not None else asyncio.Runner() as loop:
            while True:
                for episode in _admitted(waiting, concurrency - len(live), cancelled):
                    run = _Run(episode, engine.renderer, engine.context, limits, on_event, cancelled)
                    entry = _Live(run, run.work())
                    live.append(entry)
                    entry.send(None)
                if not live:
                    return
                ended = [entry for entry in live if entry.reason is not None]
                live = [entry for entry in live if entry.reason is None]
                if ended and not keep:
                    engine.forget([entry.run.episode.session for entry in ended])
                for entry in ended:
                    assert entry.reason is not None
                    yield entry.run.outcome(entry.reason)
                _generate(engine, live, sampling)
                _use_tools(loop, live, approval)
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
    runner: asyncio.Runner | None = None,
) -> EpisodeOutcome:
    """Runs one episode; see `run_episodes`."""
    (outcome,) = run_episodes(
        engine, [episode], limits, sampling, 1, on_event, cancelled=cancelled, keep=keep, approval=approval,
        runner=runner,
    )  # fmt: skip
    return outcome


def _admitted(waiting: Iterator[Episode], room: int, cancelled: Callable[[], bool] | None) -> Iterator[Episode]:
    if room > 0 and not (cancelled is not None and cancelled()):
        yield from itertools.islice(waiting, room)


def _generate(engine: Engine, live: Sequence[_Live], sampling: Sampling) -> None:
    """All spans that are wanted now, in one call of the engine."""
    wanted = [(entry, entry.wish.request) for entry in live if isinstance(entry.wish, Speak)]
    if wanted:
        made = engine.generate([request for _, request in wanted], sampling)
        for (entry, _), generation in zip(wanted, made, strict=True):
            entry.send(generation)


def _use_tools(runner: asyncio.Runner, live: Sequence[_Live], approval: Approval) -> None:
    """All calls that are wanted now: confirmed one after another, then made side by side."""
    wanted = [(entry, entry.wish) for entry in live if isinstance(entry.wish, UseTools)]
    if not wanted:
        return
    prepared = [_prepare(entry.run, wish, approval) for entry, wish in wanted]

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


def _prepare(run: _Run, wish: UseTools, approval: Approval) -> list[Prepared]:
    begun = time.monotonic()
    prepared = prepare(run.episode.source, wish.calls, approval, run.episode.tools)
    run.pause(time.monotonic() - begun)
    return prepared


async def _perform(run: _Run, wish: UseTools, calls: Sequence[Prepared]) -> list[Observation]:
    return await perform(
        run.episode.source, calls, timeout=wish.timeout, seconds=wish.seconds, result_bytes=run.limits.tool_bytes,
        cancelled=run.cancelled,
    )  # fmt: skip
