"""Domain randomisation: a trajectory about other things, in the same shape.

A few dozen tools seen thousands of times are soon known by heart, and what is known by heart isn't read. So a share
of the training trajectories has the words of its schemas exchanged throughout: the first part of each tool's name (the
collection) for an invented word, what the tools are about for other ordinary nouns. The instruction, rationales,
calls, observations and answers change with them, so the trajectory stays right, and only reading the schema tells what
to write.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from alpha_umi.training.words import LINKING, NOUNS, VERBS, invented
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
    fresh = rng.sample(NOUNS, min(len(NOUNS), 3 * len(others) + 20))
    spare = iter([noun for noun in fresh if noun not in others and noun not in _KEPT])
    words = {collection: invented(rng) for collection in collections}
    for word in sorted(others, key=len):
        singular = word[:-1] if word.endswith("s") and word[:-1] in words else None
        new = words[singular] + "s" if singular else next(spare, None)
        if new is not None:
            words[word] = new
    return words


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
