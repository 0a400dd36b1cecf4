"""Turns values into the types that a schema asks for, where nothing is lost by it.

``"3"`` becomes 3, ``"true"`` true, 3 ``"3"``, the text of a list or an object what it says, a single value a list of
one, and a word of an enumeration gets its case. Only ``type``, ``enum``, ``properties`` and ``items`` are looked at;
whatever else is wrong stays wrong.
"""

from __future__ import annotations

import json
import math
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import UndefinedTypeCheck

_DEEPEST = 16


def coerced(value: Any, schema: Any, depth: int = 0) -> Any:
    """The value in the type that the schema asks for, or as it is."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return value
    wanted = schema.get("type")
    kinds = [kind for kind in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(kind, str)]
    if kinds and not any(_fits(value, kind) for kind in kinds):
        value = next((made for kind in kinds for made in _made(value, kind)), value)
    if isinstance(value, dict) and isinstance(schema.get("properties"), dict):
        inner = schema["properties"]
        return {key: coerced(one, inner.get(key), depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [coerced(one, schema.get("items"), depth + 1) for one in value]
    return _of_enumeration(value, schema.get("enum"))


def _fits(value: Any, kind: str) -> bool:
    """Whether the value is of the type, or the type is none that JSON Schema knows."""
    try:
        return Draft202012Validator.TYPE_CHECKER.is_type(value, kind)
    except UndefinedTypeCheck:
        return True


def _made(value: Any, kind: str) -> list[Any]:
    """The value as another type, in a list; an empty one if that would lose something."""
    if kind == "array" and value is not None and not isinstance(value, str | dict):
        return [[value]]
    if kind == "string" and isinstance(value, int | float):
        return [json.dumps(value)]
    if not isinstance(value, str):
        return []
    try:
        read = json.loads(value.strip().lower() if kind in ("boolean", "null") else value.strip())
    except (ValueError, RecursionError):
        return [[value]] if kind == "array" else []
    if isinstance(read, float) and not math.isfinite(read):
        return []
    if kind == "array" and not isinstance(read, list):
        return [[value]]
    return [read] if _fits(read, kind) else []


def _of_enumeration(value: Any, words: Any) -> Any:
    if not isinstance(value, str) or not isinstance(words, list) or value in words:
        return value
    same = [word for word in words if isinstance(word, str) and word.casefold() == value.strip().casefold()]
    return same[0] if len(same) == 1 else value
