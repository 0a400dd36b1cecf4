"""A JSON value without secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alpha_umi.tools.text import masked

_BETWEEN = "\0\0"


def masked_json(value: Any, environment: Mapping[str, str]) -> Any:
    """The value with the secrets of ``environment`` masked in all its texts, keys included.

    Texts are looked at as they are after JSON is parsed, and within them as JSON writes them once more.
    """
    texts = list(_texts(value))
    together = masked(_BETWEEN.join(texts), environment).split(_BETWEEN)  # finding the secrets is the dear part
    if len(together) != len(texts) or any("\0" in text for text in texts):
        together = [masked(text, environment) for text in texts]
    return _with(value, iter(together))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _texts(one)


def _with(value: Any, texts: Iterator[str]) -> Any:
    """The value with these texts in place of its own, in the same order."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, list):
        return [_with(one, texts) for one in value]
    if isinstance(value, dict):
        return {next(texts): _with(one, texts) for key, one in value.items()}
    return value
