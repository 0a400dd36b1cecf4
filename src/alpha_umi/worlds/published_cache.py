"""StableToolBench's own cache of replies, read as it is published and never written.

``CACHE/<Category>/<collection>_for_<Category>/<api>.json`` is an object: the arguments as Python prints a dictionary,
and the reply, ``{"error", "response"}``. There the order of the arguments matters; here it doesn't, and of several
entries that are one call the first counts.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from alpha_umi.errors import DataError
from alpha_umi.worlds.protocol import ApiCall, ApiName, ApiReply

_FILES_HELD = 1024


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    error: str = ""
    response: Any = ""


class PublishedCache:
    """The folder of the cache. A file is read when one of its calls is made; entries that can't be read are left out.

    Raises:
        DataError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(folder, "no such folder; give StableToolBench's tool_response_cache")
        self._folder = folder
        self._entries = lru_cache(maxsize=_FILES_HELD)(self._read)

    def get(self, call: ApiCall) -> ApiReply | None:
        """What is published of this call."""
        return next((reply for one, reply in self._entries(call.name) if one.key == call.key), None)

    def examples(self, name: ApiName) -> Sequence[tuple[ApiCall, ApiReply]]:
        """Everything that is published of an API, in the order of its file."""
        return self._entries(name)

    def _read(self, name: ApiName) -> tuple[tuple[ApiCall, ApiReply], ...]:
        path = self._folder / name.category / f"{name.collection}_for_{name.category}" / f"{name.api}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return ()
        return tuple(_entries(name, content)) if isinstance(content, dict) else ()


def _entries(name: ApiName, content: dict[str, Any]) -> Iterator[tuple[ApiCall, ApiReply]]:
    for text, value in content.items():
        try:
            arguments = ast.literal_eval(text) if text else {}
            reply = _Reply.model_validate(value)
            call = ApiCall(name, arguments)
            if isinstance(arguments, dict) and call.canonical:
                yield call, ApiReply.told(reply.error, reply.response)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, ValidationError):
            continue
