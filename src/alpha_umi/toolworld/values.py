"""Invented values: names, ids, dates and numbers that cannot be memorised, only copied.

Names are made of syllables. Every ordered pair of syllables belongs to one of two halves, and a word uses pairs of its
own half only, so a held-out word shares no adjacent syllable pair with any training word, let alone the word itself.
"""

from __future__ import annotations

from collections.abc import Container
from functools import cache
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from alpha_umi.toolworld.catalogue import Field

Vocabulary = Literal["train", "held-out"]

_ONSETS = ("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "tr", "st")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "", "", "n", "r", "l", "s", "k", "m", "x")
_SYLLABLES = tuple(onset + vowel for onset in _ONSETS for vowel in _VOWELS)
_SIZES: dict[Vocabulary, int] = {"train": 4000, "held-out": 1500}
_LETTERS = range(5, 10)
_TWO_WORDS = 0.35
_ENGLISH = frozenset({"Lives"})  # come out by chance, and the catalogue uses them
_MONTH_DAYS = 28


def _pair_is_held_out(first: int, second: int) -> bool:
    return (first * 7 + second) % 4 == 0


@cache
def words(vocabulary: Vocabulary) -> tuple[str, ...]:
    """All invented words of a vocabulary, capitalised, 5 to 9 letters, in a fixed order."""
    rng = Random(f"toolworld words {vocabulary}")
    held_out = vocabulary == "held-out"
    found: dict[str, None] = {}
    while len(found) < _SIZES[vocabulary]:
        chosen = [rng.randrange(len(_SYLLABLES)) for _ in range(rng.choice((2, 2, 3)))]
        if any(_pair_is_held_out(a, b) != held_out for a, b in pairwise(chosen)):
            continue
        word = ("".join(_SYLLABLES[index] for index in chosen) + rng.choice(_CODAS)).capitalize()
        if len(word) in _LETTERS and word not in _ENGLISH:
            found[word] = None
    other = set(words("train")) if held_out else set()
    return tuple(word for word in found if word not in other)


def draw_name(rng: Random, vocabulary: Vocabulary, link: str, taken: Container[str] = ()) -> str:
    """Draws a name that is not taken; a person's name sometimes has two words."""
    pool = words(vocabulary)
    while True:
        name = rng.choice(pool)
        if link == "person" and rng.random() < _TWO_WORDS:
            name = f"{name} {rng.choice(pool)}"
        if name not in taken:
            return name


def draw(rng: Random, field: Field, vocabulary: Vocabulary, taken: Container[str] = ()) -> Any:
    """Draws a value of the field's kind; names and ids avoid those already taken."""
    kind = field.kind
    if kind == "name":
        return draw_name(rng, vocabulary, field.link, taken)
    if kind == "id":
        return draw_id(rng, field.prefix, taken)
    if kind == "int":
        return rng.randint(int(field.low), int(field.high))
    if kind == "num":
        return round(rng.uniform(field.low, field.high), 1)
    if kind == "enum":
        return rng.choice(field.options)
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "date":
        return f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, _MONTH_DAYS):02d}"
    if kind == "time":
        return f"{rng.randint(7, 21):02d}:{rng.choice((0, 15, 30, 45)):02d}"
    raise ValueError(f"no value can be drawn for a field of kind {kind!r}")


def draw_id(rng: Random, prefix: str, taken: Container[str] = ()) -> str:
    """Draws an id such as ``BK-4821`` that is not taken."""
    while True:
        value = f"{prefix}-{rng.randint(1000, 9999)}"
        if value not in taken:
            return value
