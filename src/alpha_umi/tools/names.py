"""Names that every model API takes for a function: ASCII letters, digits, ``_`` and ``-``, at most 64, each once."""

from __future__ import annotations

import re
from collections.abc import Container

NAME_LIMIT = 64
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]+")


def legal_name(name: str, otherwise: str) -> str:
    """The name in legal characters; ``otherwise`` if nothing is left of it."""
    return _ILLEGAL.sub("_", name).strip("_")[:NAME_LIMIT] or otherwise


def unique_name(name: str, taken: Container[str]) -> str:
    """The name, or if it is taken, the first of ``name_2``, ``name_3``, ... that is not."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name[: NAME_LIMIT - len(str(number)) - 1]}_{number}"
    return candidate
