"""How a request is put into words: templates for each operation, and the joints between several requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from alpha_umi.toolworld.catalogue import SEGMENT, SLOT, WRITING, Api, Field

_DO = (
    "Please {}.", "Can you {}?", "{}.", "I want you to {}.", "Could you {} for me?", "I would like you to {}.",
    "Go ahead and {}.",
)  # fmt: skip
SENTENCES: Mapping[str, tuple[str, ...]] = {
    "get": (
        "What is {}?", "Tell me {}.", "Please look up {}.", "Can you give me {}?", "I want to know {}.", "I need {}.",
        "Do you know {}?",
    ),
    "search": (
        "Find {}.", "Search for {}.", "I am looking for {}.", "Show me {}.", "Can you find {}?", "List {}.",
        "Please look for {}.",
    ),
    "compute": (
        "What is {}?", "Work out {}.", "Calculate {}.", "Please compute {}.", "Can you work out {}?", "I need {}.",
        "Tell me {}.",
    ),
    "compare": (
        "Which is {}?", "What is {}?", "Tell me {}.", "I want to know {}.", "Please find {}.", "Show me {}.",
        "Can you tell me {}?",
    ),
    "convert": (
        "Convert {}.", "Please convert {}.", "Can you convert {}?", "I want to convert {}.",
        "Could you convert {} for me?", "I need you to convert {}.", "Go ahead and convert {}.",
    ),
    "create": _DO,
    "update": _DO,
    "cancel": _DO,
}  # fmt: skip
_VERBS = {"get": "tell me", "search": "find", "compute": "work out", "compare": "tell me", "convert": "convert"}
IN_SEQUENCE = (
    "First {}, then {}.", "Please {}, and then {}.", "{}. After that, {}.", "I want you to {} and then {}.",
    "Can you first {} and then {}?", "Start with this: {}. Then {}.",
)  # fmt: skip
AT_ONCE = (
    "At once, {} and {}.", "Do both at once: {} and {}.", "Please {} and at the same time {}.",
    "In one go, {} and {}.", "I want both together: {} and {}.", "Can you {} and {} at the same time?",
)  # fmt: skip
_THIRD = (" Then {}.", " After that, {}.", " Finally, {}.")
_SENTENCE_START = re.compile(r"(^|[.:?] )([a-z])")


@dataclass(frozen=True)
class Segment:
    """A piece of a phrase; one that is optional stood in brackets."""

    text: str
    slots: tuple[str, ...]
    optional: bool


@cache
def segments(phrase: str) -> tuple[Segment, ...]:
    """Splits ``book {room}[ on {date}]`` into what must stay and what can be left out."""
    out = []
    for index, text in enumerate(SEGMENT.split(phrase)):
        if text:
            out.append(Segment(text, tuple(slot[1] for slot in SLOT.findall(text)), index % 2 == 1))
    return tuple(out)


def phrase_values(phrase: str) -> dict[str, bool]:
    """The booleans that a phrase fixes by its words: ``{+parking}`` is true, ``{-parking}`` is false."""
    return {name: sign == "+" for sign, name in SLOT.findall(phrase) if sign}


def fill(text: str, values: Mapping[str, str]) -> str:
    """Puts values in the slots; slots of booleans vanish."""
    return SLOT.sub(lambda match: "" if match[1] else values[match[2]], text)


def spoken(value: Any) -> str:
    """A value as a person writes it: in the form that a call needs, lists with *and*, booleans as yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        *first, last = [spoken(item) for item in value]
        return f"{', '.join(first)} and {last}" if first else last
    return str(value)


def refer(phrase: str, field: Field, result: str) -> tuple[str, str]:
    """Points a phrase at an earlier result: ``the hotel {hotel}`` becomes ``that hotel``.

    Returns:
        The phrase, and what belongs in the slot of ``field``.
    """
    if field.kind == "id":
        return phrase, "with that id"
    noun = rf"\bthe (sports )?\w+ (?=\{{{field.name}\}})"
    return re.sub(noun, "", phrase), f"that {result.replace('_', ' ')}"


def imperative(api: Api, request: str) -> str:
    """A request as a verb phrase: ``tell me the price of Tamiro``."""
    return request if api.op in WRITING else f"{_VERBS[api.op]} {request}"


def instruction(rng: Random, apis: Sequence[Api], requests: Sequence[str], at_once: bool) -> str:
    """Joins one to three requests into what the user says."""
    if len(apis) == 1:
        text = rng.choice(SENTENCES[apis[0].op]).format(requests[0])
    else:
        phrases = [imperative(api, request) for api, request in zip(apis, requests, strict=True)]
        text = rng.choice(AT_ONCE if at_once else IN_SEQUENCE).format(*phrases[:2])
        text += "".join(rng.choice(_THIRD).format(phrase) for phrase in phrases[2:])
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)
