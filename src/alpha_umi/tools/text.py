"""What a tool said, made fit to be read: no control characters, no secrets, no more than a bound."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

MASK = "[masked]"
SHORTEST_SECRET = 6
"""Characters; a shorter value would be masked in texts that have nothing to do with it."""

_SECRET_NAME = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_TERMINAL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# C0 and C1 without tab and line feed; what turns the direction of text around; invisible tag characters
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")


def observable(text: str, limit: int) -> str:
    """A tool's text without control characters and secrets, of at most about ``limit`` bytes of UTF-8.

    Of a longer text the head and the tail are kept and the cut is marked.
    """
    return shortened(masked(stripped(text)), limit)


def stripped(text: str) -> str:
    """The text without control characters and terminal sequences; what UTF-8 can't hold becomes a question mark."""
    text = _TERMINAL_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub("", text).encode("utf-8", "replace").decode()


def masked(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without the values of variables that are named like a key, a token, a secret or a password.

    Values are found as they are, in JSON strings and percent-encoded; not in encodings that shift them, as base64.

    Args:
        text: Any text.
        environment: Name to value; None takes the environment of the process.
    """
    for secret in _secrets(os.environ if environment is None else environment):
        text = text.replace(secret, MASK)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a variable is named like a key, a token, a secret or a password."""
    return _SECRET_NAME.search(name) is not None


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """Every written form of every secret, longest first."""
    forms: set[str] = set()
    for name, value in environment.items():
        secret = value.strip()
        if is_secret_name(name) and len(secret) >= SHORTEST_SECRET:
            in_json = (json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
            encoded = (quote(secret, safe, errors="replace") for safe in ("", "/"))
            forms |= {secret, stripped(secret), *in_json, *encoded, quote_plus(secret, errors="replace")}
    return sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)


def shortened(text: str, limit: int) -> str:
    """The text if it has at most ``limit`` bytes of UTF-8; otherwise as many, half head and half tail."""
    cut = Budget(limit).cut(text)
    return text if cut is None else f"{cut.head}\n[... {cut.left_out} bytes cut ...]\n{cut.tail}"


@dataclass(frozen=True)
class Cut:
    """What is left of a text that was too long.

    Attributes:
        head: Its beginning, verbatim.
        tail: Its end.
        left_out: Units between them.
    """

    head: str
    tail: str
    left_out: int


def _decoded(data: Sequence[int]) -> str:
    return bytes(data).decode(errors="ignore")


@dataclass(frozen=True)
class Budget:
    """How long a text may be: so many bytes of UTF-8, or with a tokenizer's functions, so many tokens.

    Attributes:
        limit: Units.
        encode: Takes a text apart into units.
        decode: Puts units together; the ends of what it is given may be halves of characters.
    """

    limit: int
    encode: Callable[[str], Sequence[int]] = str.encode
    decode: Callable[[Sequence[int]], str] = _decoded

    def cut(self, text: str) -> Cut | None:
        """Head and tail of the text, half of the limit each; None if all of it fits."""
        units = self.encode(text)
        over = len(units) - self.limit
        if over <= 0:
            return None
        half = self.limit // 2
        tail = self.decode(units[len(units) - half :]).lstrip("\ufffd") if half else ""
        return Cut(self._verbatim(units[: self.limit - half], text), tail, over)

    def head(self, text: str) -> str:
        """As much of the text's beginning as fits; at least one character of a text that has one."""
        units = self.encode(text)
        fits = text if len(units) <= self.limit else self._verbatim(units[: self.limit], text)
        return fits or text[:1]

    def _verbatim(self, units: Sequence[int], text: str) -> str:
        """The beginning of the text that these units are; decoding may change it at its end."""
        decoded = self.decode(units)
        if text.startswith(decoded):
            return decoded
        return text[
            : next(number for number, (one, other) in enumerate(zip(decoded, text, strict=False)) if one != other)
        ]
