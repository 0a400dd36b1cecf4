"""One answer on its way: an episode's run, what the client wants of it, and what it is told."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from alpha_umi.agent import Episode, React, StopReason
from alpha_umi.agent.run import Run
from alpha_umi.agent.steps import Speak, Wish
from alpha_umi.engines.base import Conversation, Ending, Engine, Generation, Request
from alpha_umi.serving.asked import Asked
from alpha_umi.serving.errors import ApiError
from alpha_umi.serving.grammars import calling
from alpha_umi.serving.reply import Field, Reply
from alpha_umi.tools import Observation, ToolSource
from alpha_umi.trajectory import AssistantMessage, ToolCall, Trajectory

FinishReason = Literal["stop", "tool_calls", "length"]
_AS_USUAL = frozenset({StopReason.ANSWERED, StopReason.GAVE_UP, StopReason.CLIENT_CALLS})


@dataclass(frozen=True)
class Begun:
    """The conversation fits the context, and the answer is being generated."""


@dataclass(frozen=True)
class Delta:
    """Something is added to a field."""

    index: int
    field: Field
    text: str


@dataclass(frozen=True)
class Answer:
    """An answer is complete.

    Attributes:
        index: Which of a request's answers.
        reasoning: The planner's rationales.
        content: The summarizer's answer.
        refusal: What the user is told if the planner gave up.
        calls: For the client to make, under ids of their own.
        stop_reason: Why the run ended.
        finish_reason: The same in OpenAI's words.
        ended: Why the last span ended, if not by itself.
        prompt_tokens: Of the conversation,
        cached_tokens: of these, whose keys and values the first voice had not to compute.
        prefill_tokens: That all voices computed.
        generated_tokens: That all voices wrote,
        reasoning_tokens: of these, the planner.
        trace: The turns of the run, where the server's own tools were at work.
    """

    index: int
    reasoning: str
    content: str | None
    refusal: str | None
    calls: tuple[ToolCall, ...]
    stop_reason: StopReason
    finish_reason: FinishReason
    ended: Ending | None
    prompt_tokens: int
    cached_tokens: int
    prefill_tokens: int
    generated_tokens: int
    reasoning_tokens: int
    trace: list[dict[str, Any]] | None


@dataclass(frozen=True)
class Failed:
    """There is no answer."""

    error: ApiError


News = Begun | Delta | Answer | Failed


class Job:
    """One answer; it belongs to the thread that owns the engine, but for `cancel`.

    Args:
        asked: The request.
        index: Which of its answers.
        tell: Is told the news; it must not block.
        source: The server's own tools; None if the client has its own.

    Attributes:
        session: Of the engine, as long as the answer is worked on. Random choices follow it.
        wish: What the run wants next; None while it waits.
        reason: Why the run has ended, once it has.
    """

    def __init__(self, asked: Asked, index: int, tell: Callable[[News], None], source: ToolSource | None) -> None:
        self.asked, self.index, self.tell, self.own_source = asked, index, tell, source
        drawn = asked.draw(index) if asked.sampling.temperature else None
        self.session = secrets.randbits(62) if drawn is None else drawn
        self.cancelled = False
        self.speaking = False
        self.wish: Wish | None = None
        self.reason: StopReason | None = None
        self._first: Generation | None = None
        self._last: Generation | None = None
        self._reasoning_tokens = 0

    def cancel(self) -> None:
        """Nobody wants the answer any more. Any thread may say so."""
        self.cancelled = True

    def begin(self, engine: Engine, episode: Episode) -> None:
        """Runs the episode up to its first wish."""
        tell = (lambda name, text: self.tell(Delta(self.index, name, text))) if self.asked.stream else None
        self.reply = Reply(engine.renderer, self.asked.stops, tell)
        self.run = Run(
            episode, engine.renderer, engine.context, self.asked.limits, self.asked.sampling, self.reply.event,
            lambda: self.cancelled,
        )  # fmt: skip
        self._before, self._messages = len(self.run.transcript.ids), len(episode.messages)
        self._steps = React().search(self.run)
        self.send(None)

    def send(self, reply: Generation | Sequence[Observation] | None) -> None:
        """Gives the run what it wanted."""
        if isinstance(reply, Generation):
            self._first, self._last = self._first or reply, reply
            if isinstance(self.wish, Speak) and self.wish.request.voice == "planner":
                self._reasoning_tokens += len(reply.ids)
        try:
            self.wish = self._steps.send(reply)
        except StopIteration as end:
            self.wish, self.reason = None, end.value

    def close(self) -> None:
        """Ends the run where it is."""
        self._steps.close()

    @property
    def too_long(self) -> bool:
        """Whether the run ended before it began, for want of room."""
        return self.reason is StopReason.CONTEXT_LIMIT and self._first is None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the conversation."""
        return self._before

    def request(self, speak: Speak) -> Request:
        """What the engine is asked: the run's request, held to what the client wants."""
        request, asked = speak.request, self.asked
        self.reply.begin(request.voice)
        listener = self.reply.hear if self.reply.listens else None
        conversation = request.conversation
        if conversation is None or self.own_source is not None:
            return replace(request, listener=listener, grammar=self._answer_grammar(request))
        conversation = Conversation(asked.callable, conversation.messages, conversation.planner_text)
        grammar = calling(request.voice, asked.callable, required=asked.required, single=asked.single)
        grammar = grammar or self._answer_grammar(request)
        return replace(request, conversation=conversation, grammar=grammar, listener=listener)

    def _answer_grammar(self, request: Request) -> str | None:
        return self.asked.answer_grammar if request.voice == "summarizer" else None

    # -- the end

    def turn(self) -> AssistantMessage | None:
        """The turn that the client will send back; None if what it has is not what the models wrote."""
        if self.reason not in _AS_USUAL or self.reply.stopped:
            return None
        if self.reason is StopReason.CLIENT_CALLS:
            return AssistantMessage(tool_calls=self.run.episode.client_calls)
        return AssistantMessage(content=self.reply.content, refusal=self.reply.refusal)

    def answer(self) -> Answer:
        """The complete answer."""
        assert self.reason is not None
        run, first, last = self.run, self._first, self._last
        calls = run.episode.client_calls if self.reason is StopReason.CLIENT_CALLS else ()
        # the agent counts its calls from 0; a client may want to know them apart in all its conversations
        named = tuple(replace(call, id=f"call_{secrets.token_hex(12)}") for call in calls)
        ended = None if last is None or last.ended in (Ending.END, Ending.STOPPED) else last.ended
        return Answer(
            self.index, self.reply.reasoning, self.reply.content, self.reply.refusal, named, self.reason,
            self._finish_reason(ended), ended, self._before,
            min(first.cached_tokens, self._before) if first is not None else 0, run.prefill, run.generated,
            self._reasoning_tokens, self._trace(),
        )  # fmt: skip

    def _finish_reason(self, ended: Ending | None) -> FinishReason:
        if self.reason is StopReason.CLIENT_CALLS:
            return "tool_calls"
        if self.reason is StopReason.GAVE_UP or (self.reason is StopReason.ANSWERED and not self._short(ended)):
            return "stop"
        return "length"

    def _short(self, ended: Ending | None) -> bool:
        """Whether the answer was cut before its end: where it is to be JSON, before that is complete."""
        if self.asked.answer_grammar is None or ended is None:
            return ended is Ending.LENGTH
        try:
            json.loads(self.reply.content or "")
        except ValueError:
            return True
        return ended is Ending.LENGTH

    def _trace(self) -> list[dict[str, Any]] | None:
        if self.own_source is None:
            return None
        turns = self.run.episode.messages[self._messages :]
        # a call and what came of it are in the same run, so the turns are a record of their own
        return json.loads(Trajectory((), tuple(turns)).to_json())["messages"]
