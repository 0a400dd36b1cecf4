"""The tool `read_more`: of a reply that is too long the agent sees head and tail, and may read the rest in windows.

The whole reply is kept on disk, without control characters and secrets, until the block of `keeping` ends. Its id is
made of the text itself, so the same replies have the same ids, in whatever order calls of one turn end.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alpha_umi.errors import ToolError
from alpha_umi.tools.base import (
    ToolSource,
    client_tools,
    ordered_tools,
    restore,
    reversible_tools,
    snapshot,
    writing_tools,
)
from alpha_umi.tools.names import unique_name
from alpha_umi.tools.text import Budget, masked, stripped
from alpha_umi.trajectory import Tool

NAME = "read_more"
KEPT_BYTES = 256 * 2**20
"""Of all kept replies together; beyond it the oldest are deleted."""
_DESCRIPTION = "Reads on in a tool's reply that was cut, from a given character."
_PARAMETERS = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The reply's id, from the mark at the cut."},
        "start": {"type": "integer", "minimum": 0, "description": "The first character to read."},
    },
    "required": ["id", "start"],
}


class KeepingSource:
    """A source's tools and `read_more`; from `keeping`.

    Attributes:
        read_more: The tool, under a name that the source has not.
    """

    def __init__(self, source: ToolSource, budget: Budget, folder: Path, kept_bytes: int) -> None:
        self._source, self._budget, self._folder, self._kept_bytes = source, budget, folder, kept_bytes
        self._kept: OrderedDict[str, int] = OrderedDict()
        name = unique_name(NAME, {tool.name for tool in source.tools})
        self.read_more = Tool.of(name, _DESCRIPTION, _PARAMETERS)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The source's tools, then `read_more`."""
        return (*self._source.tools, self.read_more)

    @property
    def writes(self) -> frozenset[str]:
        """The source's."""
        return writing_tools(self._source)

    @property
    def client(self) -> frozenset[str]:
        """The source's."""
        return client_tools(self._source)

    @property
    def in_order(self) -> frozenset[str]:
        """The source's."""
        return ordered_tools(self._source)

    @property
    def reversible(self) -> frozenset[str]:
        """The source's."""
        return reversible_tools(self._source)

    def snapshot(self) -> object:
        """The source's; what is kept stays."""
        return snapshot(self._source)

    def restore(self, state: object) -> None:
        """Takes the source back."""
        restore(self._source, state)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Calls a tool of the source, and keeps its reply if that is too long; or reads on in a kept one.

        Raises:
            ToolError: ``unknown_reply`` if there is none of the id, or whatever the source raises.
        """
        if name == self.read_more.name:
            return self._window(arguments["id"], arguments["start"])
        text = masked(stripped(await self._source.call(name, arguments)))
        cut = self._budget.cut(text)
        if cut is None:
            return text
        way = f'{self.read_more.name}(id="{self._keep(text)}", start={len(cut.head)})'
        return f"{cut.head}\n[... cut here; {way} reads on ...]\n{cut.tail}"

    def _keep(self, text: str) -> str:
        data = text.encode()
        key = hashlib.sha256(data).hexdigest()[:10]
        if key not in self._kept:
            (self._folder / key).write_bytes(data)
        self._kept[key] = len(data)
        self._kept.move_to_end(key)
        while sum(self._kept.values()) > self._kept_bytes and len(self._kept) > 1:
            oldest, _ = self._kept.popitem(last=False)
            (self._folder / oldest).unlink()
        return key

    def _window(self, key: str, start: int) -> str:
        if key not in self._kept:  # asked before the file is: the id is the model's, and could be a path
            raise ToolError("unknown_reply", f"no reply {key!r} is kept; kept are {_listed(list(self._kept))}")
        text = (self._folder / key).read_bytes().decode()
        window = self._budget.head(text[start:])
        end = min(start, len(text)) + len(window)
        rest = f"start={end} reads on" if end < len(text) else "the end"
        return f"{window}\n[... characters {min(start, len(text))} to {end} of {len(text)}; {rest} ...]"


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[-10:]) or "none"


@contextmanager
def keeping(source: ToolSource, budget: Budget, kept_bytes: int = KEPT_BYTES) -> Iterator[KeepingSource]:
    """The source with `read_more`, for the length of a run; afterwards nothing of what was kept is left.

    Args:
        source: Not closed by this.
        budget: How much of a reply, or of a window, is shown; the marks that say how to read on come on top.
        kept_bytes: Of all kept replies together; the newest is kept in any case.
    """
    with tempfile.TemporaryDirectory(prefix="umi-replies-") as folder:
        yield KeepingSource(source, budget, Path(folder), kept_bytes)
