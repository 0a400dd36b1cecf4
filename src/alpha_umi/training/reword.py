"""Domain randomisation: a trajectory about other things, in the same shape.

A few dozen tools seen thousands of times are soon known by heart, and what is known by heart isn't read. So a share
of the training trajectories has the words of its schemas exchanged throughout: the first part of each tool's name (the
collection) for an invented one, what the tools are about for other nouns. Nearly half of those are on no list: words
that are always one piece of the tokenizer would teach the model to forget how the others are copied. The instruction,
rationales, calls, observations and answers change with them, so the trajectory stays right, and only reading the schema
tells what to write.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from alpha_umi.training.functions import noun
from alpha_umi.training.words import LINKING, NOUNS, VERBS, invented, reserved
from alpha_umi.trajectory import AssistantMessage, Message, Tool, Trajectory

_WORD = re.compile(r"[A-Za-z]+")
_KEPT = frozenset(
    [
        "type",
        "object",
        "properties",
        "required",
        "string",
        "integer",
        "number",
        "boolean",
        "array",
        "items",
        "enum",
        "description",
        "name",
        "parameters",
        "id",
        "max",
        "min",
        "date",
        "time",
        "total",
        "results",
        "result",
        "status",
        "error",
        "true",
        "false",
        "null",
        "same",
        "fails",
    ]
) | frozenset((*VERBS, *LINKING))


def reword(trajectory: Trajectory, rng: random.Random) -> Trajectory:
    """The trajectory with its schemas' words exchanged everywhere; values (capitalised names, ids, numbers) stay."""
    words = _mapping(trajectory.tools, rng)

    def exchanged(match: re.Match[str]) -> str:
        word = match.group(0)
        new = words.get(word.lower())
        if new is None:
            return word
        return new.capitalize() if word[0].isupper() else new

    def text(value: str) -> str:
        return _WORD.sub(exchanged, value)

    tools = tuple(replace(tool, schema=text(tool.schema)) for tool in trajectory.tools)
    return replace(trajectory, tools=tools, messages=tuple(_message(m, text) for m in trajectory.messages))


def _mapping(tools: tuple[Tool, ...], rng: random.Random) -> dict[str, str]:
    """New words for old: invented ones for collections, nouns for the rest; plurals follow their singular."""
    collections = list(dict.fromkeys(tool.name.partition("_")[0].lower() for tool in tools))
    others = {word.lower() for tool in tools for word in _WORD.findall(tool.schema)} - _KEPT - set(collections)
    taken = {*others, *_KEPT}
    words = {collection: _fresh(rng, _collection, taken) for collection in collections}
    for word in sorted(others, key=lambda word: (len(word), word)):
        singular = word[:-1] if word.endswith("s") and word[:-1] in words else None
        words[word] = words[singular] + "s" if singular else _fresh(rng, noun, taken)
    return words


def _fresh(rng: random.Random, make: Callable[[random.Random], str], taken: set[str]) -> str:
    """A word that isn't taken, and is from now on."""
    while (word := make(rng)) in taken or word in reserved():
        pass
    taken.add(word)
    return word


def _collection(rng: random.Random) -> str:
    """The first part of a tool's name: an invented word, or one or two words run together."""
    if rng.random() < 0.5:
        return invented(rng)
    return noun(rng) + rng.choice(("", invented(rng)[:4], rng.choice(NOUNS)))


def _message(message: Message, text: Callable[[str], str]) -> Message:
    if not isinstance(message, AssistantMessage):
        return replace(message, content=text(message.content))

    def optional(value: str | None) -> str | None:
        return None if value is None else text(value)

    calls = tuple(replace(call, name=text(call.name), arguments=text(call.arguments)) for call in message.tool_calls)
    return replace(
        message, reasoning_content=optional(message.reasoning_content), tool_calls=calls,
        content=optional(message.content), refusal=optional(message.refusal),
    )  # fmt: skip
