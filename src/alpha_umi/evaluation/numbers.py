r"""Numbers in answers: read as people write them, compared as numbers.

Thousands separators, currency signs, units and percent signs don't count; fractions (``3/4``, ``1 1/2``,
``\frac{3}{4}``) do. Number words are not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

_EQUAL = Fraction(1, 10**6)
"""Relative, or absolute below 1; programs compute in floating point."""
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d{1,300})\s*\}\s*\{\s*(\d{1,300})\s*\}")
_CURRENCY = re.compile(r"\\?[$€£¥]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>-\s?)?"
    r"(?:(?:(?P<whole>\d{1,300})\s+)?(?P<over>\d{1,300})\s?/\s?(?P<under>0{0,9}[1-9]\d{0,300})(?!\d|\.\d)"
    r"|(?P<plain>(?:\d{1,300}(?:\.\d{0,300})?|\.\d{1,300})(?:[eE][+-]?\d{1,2}(?!\d))?))"
)
_MARK = re.compile(r"answer(?:\s+is)?\b\s*:?|####", re.IGNORECASE)


def numbers_in(text: str) -> list[Fraction]:
    """All numbers of a text, in order."""
    text = _LATEX_FRACTION.sub(r" \1/\2 ", text.replace("\u2212", "-").replace("{,}", ","))
    text = _THOUSANDS.sub("", _CURRENCY.sub("", text))
    return [_value(found) for found in _NUMBER.finditer(text)]


def answer_in(text: str) -> Fraction | None:
    """The number that an answer gives: the first one behind the last ``answer is`` or ``####``, or else the last."""
    *_, marked = (0, *(found.end() for found in _MARK.finditer(text)))
    behind = numbers_in(text[marked:]) if marked else []
    return behind[0] if behind else next(reversed(numbers_in(text)), None)


def equal(one: Fraction, other: Fraction) -> bool:
    """Whether two numbers are the same but for floating-point rounding."""
    return abs(one - other) <= _EQUAL * max(1, abs(other))


def among(number: Fraction, texts: Sequence[str]) -> bool:
    """Whether a text has the number."""
    return any(equal(one, number) for text in texts for one in numbers_in(text))


def _value(found: re.Match[str]) -> Fraction:
    if found["plain"] is not None:
        value = Fraction(found["plain"])
    else:
        value = int(found["whole"] or 0) + Fraction(int(found["over"]), int(found["under"]))
    return -value if found["sign"] else value
