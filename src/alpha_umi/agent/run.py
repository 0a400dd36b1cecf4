"""One run of an episode: the step that every strategy is made of, and what the run has counted.

A step is one planner decision and what follows from it. It is a generator: it yields what it wants, a span (`Speak`) or
tool calls (`UseTools`), and is sent the result; it never waits for anything itself. `Run.here` and `Run.go_to` let a
strategy take the conversation, and tools that can go back, to an earlier place and try something else there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from alpha_umi.agent.episode import Episode
from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.agent.outcome import Event, EventKind, MadeCall, OnEvent
from alpha_umi.agent.steps import Place, Speak, Step, UseTools, Variation, Wish, signature_of
from alpha_umi.agent.trace import Trace
from alpha_umi.engines.base import Conversation, Ending, Generation, Listener, Request, Sampling
from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools import Observation
from alpha_umi.tools.base import restore, reversible_tools, snapshot, writing_tools
from alpha_umi.trajectory import OURS, AssistantMessage, Decision, Message, ToolCall, UserMessage
from alpha_umi.transcript import Renderer, Voice, parse_calls, parse_planner, parse_single

NO_REASON = "This can't be done with the tools that are available."
"""What the user is told if the planner gives up without a word."""

_NEVER_MADE = frozenset({"malformed_call", "unknown_tool", "invalid_arguments", "not_approved"})


class Run:
    """One run of an episode.

    Attributes:
        episode: What is run.
        limits: What it may take.
        cancelled: Says whether whoever started the run has stopped it.
        steps: Planner decisions so far, on all branches.
        calls: Calls so far, on all branches.
        branches: How often it went back.
    """

    def __init__(
        self,
        episode: Episode,
        renderer: Renderer,
        context: int,
        limits: Limits,
        sampling: Sampling,
        on_event: OnEvent | None = None,
        cancelled: Callable[[], bool] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.episode = episode
        self.transcript = episode.open(renderer)
        self._renderer = renderer
        self._context = context
        self.limits = limits
        self._sampling = sampling
        self._on_event = on_event
        self.cancelled = cancelled
        self._trace = trace
        self.started = time.monotonic()
        self.steps = self.branches = 0
        self.calls: list[MadeCall] = []
        self.prefill = self.generated = self.undecided = self.cut = 0
        self.at = self.depth = self._lasting = 0
        self.answer: str | None = None
        self.refusal: str | None = None
        self._logprob, self._scored = 0.0, 0
        self._variation = Variation()
        self._first_token = self._first_message = 0

    def pause(self, seconds: float) -> None:
        """Doesn't count time in which the run waited for a person."""
        self.started += seconds

    def close(self, reason: StopReason) -> None:
        """Tells that the run has ended."""
        self.tell("stop", reason.value)
        if self._trace is not None:
            self._trace.end(self.episode.session, reason, self.at)

    # -- places

    def here(self) -> Place:
        """Where the run is now."""
        return Place(
            self.at, self.depth, self.episode.position(), snapshot(self.episode.source), self._lasting,
            self.answer, self.refusal, self._logprob, self._scored,
        )  # fmt: skip

    def can_go_to(self, place: Place, over_writes: bool = False) -> bool:
        """Whether nothing has happened since that can't be taken back, or nobody minds (``over_writes``)."""
        return over_writes or place.lasting == self._lasting

    def go_to(self, place: Place) -> None:
        """Takes the conversation, and the tools that can go back, to a place of this run."""
        self.episode.go_to(place.position)
        restore(self.episode.source, place.tools)
        self.at, self.depth = place.step, place.depth
        self.answer, self.refusal = place.answer, place.refusal
        self._logprob, self._scored = place.logprob, place.scored

    def branch(self, place: Place) -> None:
        """Goes back to try something else."""
        self.go_to(place)
        self.branches += 1
        self.tell("branch", f"back to step {place.depth}, to try something else")

    # -- the step

    def step(self, variation: Variation | None = None) -> Generator[Wish, Any, Step]:
        """Takes one step from where the run is."""
        if self.depth >= self.limits.steps:
            return Step(StopReason.STEP_LIMIT)
        self._variation = variation or Variation()
        self._first_token, self._first_message = len(self.transcript.ids), len(self.episode.messages)
        before = self.steps
        made = yield from (self._single_turn() if self._renderer.voices == "single" else self._roles_turn())
        made = replace(made, messages=tuple(self.episode.messages[self._first_message :]))
        if self.steps > before:
            if self._trace is not None:
                logprob = self._logprob if self._sampling.logprobs else None
                self._trace.step(self.episode.session, self.steps, self.at, made, logprob, self.generated)
            self.at = self.steps
        return made

    def _decided(self) -> None:
        self.steps += 1
        self.depth += 1

    def _roles_turn(self) -> Generator[Wish, Any, Step]:
        reason, text = yield from self._speak("planner")
        if reason is not None:
            return Step(reason)
        self._decided()
        rationale, decision = parse_planner(text)
        self.tell("rationale", rationale)
        self.tell("decision", decision.value if decision is not None else "")
        extra: dict[str, Any] = {}
        if decision is None:
            self.undecided += 1
            decision, extra = Decision.CALL, {OURS: {"undecided": True}}
        if decision is Decision.GIVE_UP:
            return self._give_up(rationale, rationale.strip() or NO_REASON)
        reason, text = yield from self._speak("caller" if decision is Decision.CALL else "summarizer", text)
        if reason is not None:
            # the planner has spoken: its turn is kept, without what did not follow
            self._append(AssistantMessage(rationale, extra=extra))
            return Step(reason)
        if decision is Decision.FINISH:
            return self._answer(rationale, text)
        return (yield from self._call(AssistantMessage(rationale, parse_calls(text, self._next_call), extra=extra)))

    def _single_turn(self) -> Generator[Wish, Any, Step]:
        reason, text = yield from self._speak("assistant")
        if reason is not None:
            return Step(reason)
        self._decided()
        turn = parse_single(text, self._next_call)
        self.tell("rationale", (turn.reasoning_content or "") if turn.decision is not None else text)
        self.tell("decision", turn.decision.value if turn.decision is not None else "")
        if turn.content is not None:
            return self._answer(turn.reasoning_content, turn.content)
        if turn.refusal is not None:
            return self._give_up(turn.reasoning_content, turn.refusal.strip() or NO_REASON)
        if turn.decision is None:
            # nobody else could make a call of it: the whole text is one that can't be read
            self.undecided += 1
            call = ToolCall(f"call_{self._next_call}", "", text, malformed=True)
            turn = AssistantMessage(tool_calls=(call,), extra={OURS: {"undecided": True}})
        return (yield from self._call(turn))

    @property
    def _next_call(self) -> int:
        """Number of the next call of the conversation."""
        return sum(len(m.tool_calls) for m in self.episode.messages if isinstance(m, AssistantMessage))

    # -- spans

    def _speak(
        self, voice: Voice, planner_text: str | None = None
    ) -> Generator[Wish, Any, tuple[StopReason | None, str]]:
        """A span of a voice, appended as it was generated; or why there is none."""
        reason = self._over()
        if reason is not None:
            return reason, ""
        ids, messages = self._read()
        if len(ids) + len(self._renderer.header(voice)) + self.limits.least_new_tokens > self._context:
            return StopReason.CONTEXT_LIMIT, ""
        most = min(self.limits.span(voice), self.limits.tokens - self.generated)
        so_far = Conversation(self.episode.tools or (), messages, planner_text)
        request = Request(self.episode.session, voice, ids, most, so_far, listener=self._listener(voice))
        made: Generation = yield Speak(request, self._variation.sampling(self._sampling))
        if made.ended is Ending.CONTEXT:
            return StopReason.CONTEXT_LIMIT, ""
        self.prefill += made.prefill_tokens
        self.generated += len(made.ids)
        if made.ended is Ending.STOPPED and self._over() is StopReason.CANCELLED:
            return StopReason.CANCELLED, ""
        self.cut += not made.finished
        if voice in ("planner", "assistant"):
            self._score(made)
        self.transcript.append(self._renderer.written(voice, made.ids), len(self.episode.messages))
        return None, self._renderer.decode(made.ids)

    def _listener(self, voice: Voice) -> Listener | None:
        """Tells whoever watches how a span grows, and ends it where whoever started the run has stopped it."""
        if self._on_event is None and self.cancelled is None:
            return None
        heard: list[int] = []

        def listen(tokens: Sequence[int]) -> bool:
            heard.extend(tokens)
            if self._on_event is not None:
                self._on_event(Event("writing", self._renderer.decode(heard), self.episode.session, voice))
            return self.cancelled is not None and self.cancelled()

        return listen

    def _read(self) -> tuple[tuple[int, ...], tuple[Message, ...]]:
        """What a voice reads, as tokens and as messages: the conversation, with the hint where this step began."""
        ids, messages = tuple(self.transcript.ids), tuple(self.episode.messages)
        if self._variation.hint is None:
            return ids, messages
        hint = UserMessage(self._variation.hint)
        said = tuple(
            token for piece in self._renderer.message(hint) for token in (*piece.header, *piece.span, *piece.tail)
        )
        at, first = self._first_token, self._first_message
        return ids[:at] + said + ids[at:], (*messages[:first], hint, *messages[first:])

    def _score(self, made: Generation) -> None:
        if not self._sampling.logprobs:
            return
        if made.logprob is None:
            raise UserError(
                "this engine doesn't say how probable its spans are, which this strategy chooses by: "
                "take --strategy react or dfsdt"
            )
        self._logprob += made.logprob
        self._scored += len(made.ids) - made.forced_tokens

    def _over(self) -> StopReason | None:
        if self.cancelled is not None and self.cancelled():
            return StopReason.CANCELLED
        if self._left() <= 0:
            return StopReason.TIME_LIMIT
        return StopReason.TOKEN_LIMIT if self.generated >= self.limits.tokens else None

    def _left(self) -> float:
        return self.limits.seconds - (time.monotonic() - self.started)

    # -- what follows from a decision

    def _call(self, turn: AssistantMessage) -> Generator[Wish, Any, Step]:
        """Makes the calls of a turn and appends what came of them, in call order; or hands calls out."""
        self._append(turn)
        for call in turn.tool_calls:
            self.tell("call", call.arguments if call.malformed else f"{call.name}({call.arguments})")
        signature = signature_of(turn.tool_calls)
        if signature in self._variation.tried:
            return Step(None, signature, repeated=True)
        too_many = len(self.calls) + len(turn.tool_calls) > self.limits.calls
        reason = StopReason.CALL_LIMIT if too_many else self._over()
        if reason is None or reason is StopReason.TOKEN_LIMIT:
            seconds = max(self._left(), 0.001)
            observations: Sequence[Observation] = yield UseTools(turn.tool_calls, self.limits.tool_timeout, seconds)
        else:
            stopped = ToolError("not_run", f"the run was stopped ({reason.value}) before the call was made")
            observations = [Observation.failure(stopped)] * len(turn.tool_calls)
        handed_out = self._observe(turn.tool_calls, observations)
        return Step(StopReason.CALL_LIMIT if too_many else handed_out, signature)

    def _observe(self, calls: Sequence[ToolCall], observations: Sequence[Observation]) -> StopReason | None:
        answered = list(zip(calls, observations, strict=True))
        made = [MadeCall(call, one.error, one.client, one.repaired) for call, one in answered]
        self.calls += made
        lasting = writing_tools(self.episode.source) - reversible_tools(self.episode.source)
        self._lasting += sum(one.call.name in lasting and one.error not in _NEVER_MADE for one in made)
        if any(one.client for one in observations):
            self.episode.hand_out({call.id: one.text for call, one in answered if not one.client})
            return StopReason.CLIENT_CALLS
        for call, one in answered:
            self.episode.append_observation(call, one.text, one.repaired)
            self.tell("observation", one.text)
        return None

    def _answer(self, rationale: str | None, text: str) -> Step:
        self.answer = text
        self._append(AssistantMessage(rationale, content=text))
        self.tell("answer", text)
        return Step(StopReason.ANSWERED)

    def _give_up(self, rationale: str | None, refusal: str) -> Step:
        self.refusal = refusal
        self._append(AssistantMessage(rationale, refusal=refusal))
        self.tell("refusal", refusal)
        return Step(StopReason.GAVE_UP)

    def _append(self, message: Message) -> None:
        self.episode.messages.append(message)

    def tell(self, kind: EventKind, text: str) -> None:
        """Tells whoever watches."""
        if self._on_event is not None:
            self._on_event(Event(kind, text, self.episode.session))
