"""A conversation with an agent: its messages, its transcript, and where its tools are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from alpha_umi.errors import UserError
from alpha_umi.tools import ToolSource
from alpha_umi.tools.execution import RESULT_BYTES, ReadyCall
from alpha_umi.tools.text import observable
from alpha_umi.trajectory import OURS, AssistantMessage, Message, Tool, ToolCall, ToolMessage, Trajectory, UserMessage
from alpha_umi.transcript import Renderer, Segment, Transcript


@dataclass(frozen=True)
class Position:
    """How far an episode had come; `Episode.go_to` takes it back there. It knows nothing of the tools' state."""

    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    segments: tuple[Segment, ...]


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

    def append_observation(self, call: ToolCall, text: str, executed: ReadyCall | None = None) -> None:
        """Appends what came of a call, or of what was ``executed`` in its place, to the messages and the transcript."""
        if self.transcript is not None and self._renderer is not None:
            self.transcript.append(self._renderer.observation(text), len(self.messages))
        extra = {} if executed is None else {OURS: {"executed": executed.to_json()}}
        self.messages.append(ToolMessage(call.id, text, extra))

    def trajectory(self) -> Trajectory:
        """The record of the conversation so far."""
        return Trajectory(self.source.tools if self.tools is None else self.tools, tuple(self.messages))

    def position(self) -> Position:
        """Where the conversation is now, to come back to."""
        transcript = self.transcript or Transcript()
        return Position(tuple(self.messages), tuple(transcript.ids), tuple(transcript.segments))

    def go_to(self, position: Position) -> None:
        """Makes messages and transcript what they were at a position of this episode, earlier or on another branch."""
        self.messages[:] = position.messages
        if self.transcript is not None:
            self.transcript.ids[:] = position.ids
            self.transcript.segments[:] = position.segments
