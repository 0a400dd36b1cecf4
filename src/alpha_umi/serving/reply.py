"""What of an answer is certain while its tokens still come, and the answer as it grows.

What a client was told can't be taken back. So a planner's last line waits while it may become its decision, an
answer's last characters wait while they may become a stop sequence or a character of several bytes, and calls wait
until they are complete and checked: those that can't be made never reach the client. What was told is in the end the
very text that a client that doesn't stream is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from alpha_umi.agent.outcome import Event
from alpha_umi.trajectory import Decision
from alpha_umi.transcript import SINGLE_DECIDES, SINGLE_MARKS, Renderer, Voice

Field = Literal["reasoning_content", "content", "refusal"]
Tell = Callable[[Field, str], None]

_DECISIONS = tuple(f"Next: {decision.value}" for decision in Decision)
_HALF_CHARACTER = "\ufffd"


def cut_at(text: str, stops: Sequence[str]) -> str | None:
    """The text before the first stop sequence in it; None if it holds none."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(found)] if found else None


def certain(voice: Voice, text: str, stops: Sequence[str]) -> tuple[str, str]:
    """The rationale and the answer that a span has for certain, given how it begins."""
    if voice == "planner":
        return _before_decision(text), ""
    if voice == "summarizer":
        return "", _before_stop(text, stops)
    if voice == "caller":
        return "", ""
    match = SINGLE_DECIDES.search(text)
    if match is None:
        return _before_mark(text), ""
    answer = text[match.end() :] if match.group(1) == "Answer: " else ""
    return text[: match.start()], _before_stop(answer, stops)


def _before_decision(text: str) -> str:
    at = max(text.rfind("\n"), 0)
    last = text[at:].strip()
    return text[:at] if any(decision.startswith(last) for decision in _DECISIONS) else text


def _before_mark(text: str) -> str:
    at = max(text.rfind("\n"), 0)
    last = text[at:].removeprefix("\n")
    return text[:at] if any(mark.startswith(last) for mark in SINGLE_MARKS) else text


def _before_stop(text: str, stops: Sequence[str]) -> str:
    cut = cut_at(text, stops)
    if cut is not None:
        return cut
    most = min(max(map(len, stops), default=1) - 1, len(text))
    held = next((n for n in range(most, 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)
    return text[: len(text) - held]


class SpanText:
    """The text of a span as its tokens come, without a character that is not complete."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._ids: list[int] = []
        self._begin = self._end = 0
        self.text = ""

    def add(self, tokens: Sequence[int]) -> str:
        """The whole text, with what these tokens add to it."""
        self._ids += [token for token in tokens if token != self._renderer.markers.end]
        # a token's text may depend on the one before it
        before = self._renderer.show(self._ids[self._begin : self._end])
        after = self._renderer.show(self._ids[self._begin :])
        if len(after) > len(before) and not after.endswith(_HALF_CHARACTER):
            self.text += after[len(before) :]
            self._begin, self._end = self._end, len(self._ids)
        return self.text


class Reply:
    """The answer as it grows.

    Args:
        renderer: Made the tokens.
        stops: End the answer.
        tell: Is told what is added to a field; None if nobody wants to know before the end.

    Attributes:
        reasoning: The rationales of all steps.
        content: The answer, without the stop sequence and what follows it.
        refusal: What the user is told instead.
        stopped: The answer was ended by a stop sequence.
    """

    def __init__(self, renderer: Renderer, stops: Sequence[str], tell: Tell | None) -> None:
        self._renderer, self._stops, self._tell = renderer, stops, tell
        self._voice: Voice = "planner"
        self._span = SpanText(renderer)
        self._told: dict[Field, str] = {}
        self.reasoning = ""
        self.content: str | None = None
        self.refusal: str | None = None
        self.stopped = False

    @property
    def listens(self) -> bool:
        """Whether it wants to hear tokens as they come."""
        return self._tell is not None or bool(self._stops)

    def begin(self, voice: Voice) -> None:
        """A voice begins a span."""
        self._voice, self._span = voice, SpanText(self._renderer)

    def hear(self, tokens: Sequence[int]) -> bool:
        """The span goes on; says whether a stop sequence has ended it. Never raises for what the tokens are."""
        text = self._span.add(tokens)
        rationale, answer = certain(self._voice, text, self._stops)
        self._say("reasoning_content", _joined(self.reasoning, rationale))
        self._say("content", answer)
        return bool(self._stops) and cut_at(_answer_of(self._voice, text), self._stops) is not None

    def event(self, event: Event) -> None:
        """A span is complete, and this is what it was."""
        if event.kind == "rationale":
            self.reasoning = _joined(self.reasoning, event.text)
            self._say("reasoning_content", self.reasoning)
        elif event.kind == "answer":
            cut = cut_at(event.text, self._stops)
            self.stopped = cut is not None
            self.content = event.text if cut is None else cut
            self._say("content", self.content)
        elif event.kind == "refusal":
            self.refusal = event.text
            self._say("refusal", self.refusal)

    def _say(self, name: Field, text: str) -> None:
        told = self._told.get(name, "")
        if self._tell is not None and len(text) > len(told):
            self._tell(name, text[len(told) :])
            self._told[name] = text


def _answer_of(voice: Voice, text: str) -> str:
    if voice == "summarizer":
        return text
    match = SINGLE_DECIDES.search(text) if voice == "assistant" else None
    return text[match.end() :] if match is not None and match.group(1) == "Answer: " else ""


def _joined(before: str, rationale: str) -> str:
    return f"{before}\n\n{rationale}" if before and rationale else before + rationale
