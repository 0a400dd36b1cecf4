"""What a request asks of the agent, and what a server can do for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from alpha_umi.agent import Limits
from alpha_umi.engines.base import Sampling
from alpha_umi.trajectory import Message, Tool


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        messages: The conversation so far.
        tools: The client's tools.
        callable: Those of them that may be called in this turn.
        required: One of them has to be called.
        single: Only one call may be made.
        answer_grammar: Holds the answer, if it has to have a form.
        stops: End the answer and are no part of it.
        sampling: How tokens are chosen.
        limits: What the run may take.
        seed: Makes sampling repeatable, if given.
        choices: How many answers are wanted.
        stream: As they come.
        usage: A last chunk of a stream tells the usage.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    callable: tuple[Tool, ...]
    required: bool
    single: bool
    answer_grammar: str | None
    stops: tuple[str, ...]
    sampling: Sampling
    limits: Limits
    seed: int | None
    choices: int
    stream: bool
    usage: bool

    def draw(self, choice: int) -> int | None:
        """The number that random choices of an answer follow; None leaves it to chance."""
        if self.seed is None:
            return None
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{choice}".encode()).digest()[:7], "big")


@dataclass(frozen=True)
class Abilities:
    """What a server can do for a request.

    Attributes:
        model: The name it is served under.
        constrained: The engine holds spans to grammars.
        single: The engine has one voice in place of the roles.
        own_tools: The server runs tools of its own, and takes none from clients.
        characters: More than these can't fit the context, whatever they are; None knows no such number.
    """

    model: str
    constrained: bool
    single: bool
    own_tools: bool
    characters: int | None = None
