"""What the strategies are tried on: tools that can go back or can't, and engines that follow a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from alpha_umi.engines import Generation, Request, Sampling
from alpha_umi.engines.scripted import Script, ScriptedEngine
from alpha_umi.errors import ToolError
from alpha_umi.trajectory import Tool
from alpha_umi.transcript import Renderer, Voice
from tests.tokenizers import nano

KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}


class Shelf:
    """Remembers what was looked up, and what was put there; it can't go back."""

    tools = (Tool.of("look_up", "Finds a thing.", KEY), Tool.of("put", "Puts a thing there.", KEY))
    writes = frozenset({"put"})

    def __init__(self) -> None:
        self.made: list[str] = []
        self.kept: list[str] = []

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        key = arguments["key"]
        self.made.append(key)
        if key == "down":
            raise ToolError("server_error", "internal error 500")
        self.kept.append(key)
        return f"the value of {key}"


class ReversibleShelf(Shelf):
    """The same, but what is there can be taken back; ``made`` is not."""

    reversible = frozenset({"look_up", "put"})

    def snapshot(self) -> object:
        return tuple(self.kept)

    def restore(self, state: object) -> None:
        assert isinstance(state, tuple)
        self.kept[:] = state


class ScoredEngine(ScriptedEngine):
    """Says how probable its spans are: by the first of ``values`` whose key is in the text, -1 a token otherwise.

    Attributes:
        samplings: How each request was to be sampled.
    """

    def __init__(self, script: Script | Mapping[Voice, Sequence[str]], renderer: Renderer, context: int = 8192) -> None:
        super().__init__(script, renderer, context)
        self.values: Mapping[str, float] = {}
        self.samplings: list[Sampling] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        self.samplings += [sampling] * len(requests)
        return [self._scored(made) for made in super().generate(requests, sampling)]

    def _scored(self, made: Generation) -> Generation:
        text = self.renderer.decode(made.ids)
        a_token = next((value for key, value in self.values.items() if key in text), -1.0)
        return replace(made, logprob=a_token * len(made.ids))


EngineOf = Callable[..., ScoredEngine]


class _Remembering(Renderer):
    """Encodes a text once, however often it is said."""

    def __init__(self) -> None:
        super().__init__(nano())
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = super().encode(text)
        return self._known[text]


@pytest.fixture(scope="session")
def engine_of() -> EngineOf:
    renderer = _Remembering()

    def build(script: Script | Mapping[Voice, Sequence[str]], **options: Any) -> ScoredEngine:
        return ScoredEngine(script, renderer, **options)

    return build
