"""Spans as they come, with new requests taken on meanwhile: an engine need not wait for the longest span of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

from alpha_umi.engines.base import Engine, Generation, Request, Sampling

_K = TypeVar("_K")


@runtime_checkable
class Continuous(Protocol):
    """An engine that generates some spans while others wait, and admits more."""

    def begin(self, requests: Sequence[Request], sampling: Sampling) -> list[int]:
        """Takes requests on; returns a ticket each."""
        ...

    def advance(self, interrupt: Callable[[], bool] | None = None) -> dict[int, Generation]:
        """Generates until some of what was begun is complete, and returns that, by ticket.

        Nothing is returned if nothing is left, or if the interrupt, which is asked between tokens, says to stop.
        """
        ...


class Stream(Generic[_K]):
    """What is asked of one engine and not answered yet. Other engines than `Continuous` ones answer all at once.

    Args:
        engine: Generates. What is begun here and not collected is dropped by its ``forget``.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[Sampling, list[tuple[_K, Request]]] = {}
        self._begun: dict[int, _K] = {}

    def ask(self, key: _K, request: Request, sampling: Sampling) -> None:
        """Wants a span; ``key`` comes back with it."""
        self._waiting.setdefault(sampling, []).append((key, request))

    def drop(self, key: _K) -> None:
        """Lets go of what was asked with this key; the engine is to forget its session as well."""
        self._waiting = {sampling: [one for one in asked if one[0] != key] for sampling, asked in self._waiting.items()}
        self._begun = {ticket: one for ticket, one in self._begun.items() if one != key}

    def collect(self, interrupt: Callable[[], bool] | None = None) -> list[tuple[_K, Generation]]:
        """At least one span, if any is wanted: those that are complete, in the order in which they were asked for.

        With an ``interrupt`` it may come back with none: once that says so, between two tokens.
        """
        waiting, self._waiting = self._waiting, {}
        engine, out = self._engine, list[tuple[_K, Generation]]()
        for sampling, asked in waiting.items():
            keys, requests = [key for key, _ in asked], [request for _, request in asked]
            if isinstance(engine, Continuous):
                self._begun |= dict(zip(engine.begin(requests, sampling), keys, strict=True))
            else:
                out += zip(keys, engine.generate(requests, sampling), strict=True)
        if isinstance(engine, Continuous):
            made = sorted(engine.advance(interrupt).items())
            out += [(self._begun.pop(ticket), span) for ticket, span in made if ticket in self._begun]
        return out
