"""What a tool said, made fit to be read: no control characters, no secrets, no more than a bound."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
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


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """Every written form of every secret, longest first."""
    forms: set[str] = set()
    for name, value in environment.items():
        secret = value.strip()
        if _SECRET_NAME.search(name) and len(secret) >= SHORTEST_SECRET:
            in_json = (json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
            encoded = (quote(secret, safe, errors="replace") for safe in ("", "/"))
            forms |= {secret, stripped(secret), *in_json, *encoded, quote_plus(secret, errors="replace")}
    return sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)


def shortened(text: str, limit: int) -> str:
    """The text if it has at most ``limit`` bytes of UTF-8; otherwise as many, half head and half tail."""
    data = text.encode()
    if len(data) <= limit:
        return text
    head, tail = data[: limit - limit // 2], data[len(data) - limit // 2 :]
    cut = f"\n[... {len(data) - limit} bytes cut ...]\n"
    return head.decode(errors="ignore") + cut + tail.decode(errors="ignore")
