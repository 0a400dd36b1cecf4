"""When a span has begun to repeat itself."""

from __future__ import annotations

from collections.abc import Sequence

SHORTEST, LONGEST, TIMES = 8, 64, 3
"""Tokens of what a span repeats, and how often it stands there when that ends the span."""


def repeats(tokens: Sequence[int]) -> int:
    """How many tokens, 8 to 64 of them, stand three times in a row at the end; 0 if none do."""
    size, last = len(tokens), tokens[-1] if tokens else None
    for period in range(SHORTEST, min(LONGEST, size // TIMES) + 1):
        if tokens[size - 1 - period] == last and _repeated(tokens, period):
            return period
    return 0


def before_repetition(tokens: Sequence[int]) -> int:
    """After how many tokens a span would have been stopped for repeating itself: all of them, if it never would."""
    return next((n for n in range(TIMES * SHORTEST, len(tokens)) if repeats(tokens[:n])), len(tokens))


def _repeated(tokens: Sequence[int], period: int) -> bool:
    unit = tokens[-period:]
    return all(tokens[-count * period : -(count - 1) * period] == unit for count in range(2, TIMES + 1))
