"""An engine that says what it is told to: for tests and demonstrations of the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from alpha_umi.engines.base import Ending, Generation, Request, Sampling
from alpha_umi.transcript import Renderer, Voice

Script = Callable[[int, Voice, str], str]


class ScriptedEngine:
    """Answers from a function of (session, voice, transcript so far as text), or from one list of texts a voice.

    With lists, each session goes through them on its own; a list's last text is repeated when it is used up. A text
    that encodes to ``max_new_tokens`` or more is cut, like a model's.

    Attributes:
        requests: Every request so far, in order.
        forgotten: Sessions that were given up, in order.
    """

    def __init__(self, script: Script | Mapping[Voice, Sequence[str]], renderer: Renderer, context: int = 8192) -> None:
        self.renderer = renderer
        self.context = context
        self.requests: list[Request] = []
        self.forgotten: list[int] = []
        self._script = script
        self._said: dict[tuple[int, Voice], int] = {}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """Says what the script says, one span a request."""
        return [self._generate(request, sampling) for request in requests]

    def _generate(self, request: Request, sampling: Sampling) -> Generation:
        self.requests.append(request)
        ids = (*self.renderer.encode(self._text(request)), self.renderer.markers.end)
        prompt = len(request.ids) + len(self.renderer.header(request.voice))
        most = sampling.max_new_tokens if request.max_new_tokens is None else request.max_new_tokens
        room = max(min(most, self.context - prompt), 0)
        return Generation(ids[:room], Ending.END if len(ids) <= room else Ending.LENGTH, prefill_tokens=prompt)

    def _text(self, request: Request) -> str:
        if callable(self._script):
            return self._script(request.session, request.voice, self.renderer.decode(request.ids))
        texts = self._script[request.voice]
        key = (request.session, request.voice)
        number = self._said.get(key, 0)
        self._said[key] = number + 1
        return texts[min(number, len(texts) - 1)]

    def prefill(self, requests: Sequence[Request]) -> list[int]:
        """Computes nothing."""
        return [0] * len(requests)

    def fork(self, parent: int, child: int, length: int) -> None:
        """Keeps nothing, so there is nothing to share."""

    def forget(self, sessions: Iterable[int]) -> None:
        """Notes which sessions were given up."""
        self.forgotten += sessions
