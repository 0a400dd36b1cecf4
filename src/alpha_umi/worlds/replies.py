"""Replies that were given, kept in one SQLite file: the world of a run, to be asked again bit for bit.

Several processes may share the file; of two answers to one call, the first that was kept is the one that both give.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alpha_umi.database import open_database
from alpha_umi.errors import UserError
from alpha_umi.worlds.protocol import ApiCall, ApiReply, Failure

_TABLE = """
CREATE TABLE IF NOT EXISTS api_replies (
    key TEXT PRIMARY KEY, api TEXT NOT NULL, arguments TEXT NOT NULL, error TEXT NOT NULL, response TEXT NOT NULL,
    failure TEXT, answered_by TEXT NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Kept:
    """A reply and who gave it first."""

    reply: ApiReply
    answered_by: str


class ReplyStore:
    """Replies by call; to be closed. None as the path keeps them in memory only.

    Used by one thread at a time, any of them.

    Raises:
        UserError: The file can't be opened, or is no SQLite file of replies.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        with self._explained():
            self._database = open_database(path, _TABLE, any_thread=True)

    def get(self, call: ApiCall) -> Kept | None:
        """What was answered to this call, if anything was."""
        with self._explained():
            row = self._database.execute(
                "SELECT error, response, failure, answered_by FROM api_replies WHERE key = ?", (call.key,)
            ).fetchone()
        if row is None:
            return None
        failure = None if row[2] is None else Failure(row[2])
        return Kept(ApiReply(json.loads(row[1]), row[0], failure), row[3])

    def keep(self, call: ApiCall, reply: ApiReply, answered_by: str) -> Kept:
        """Keeps a reply, so that it outlives the process; returns the one that was first."""
        row = (
            call.key, str(call.name), call.canonical, reply.error, json.dumps(reply.response), reply.failure,
            answered_by,
        )  # fmt: skip
        with self._explained():
            self._database.execute("INSERT OR IGNORE INTO api_replies VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        kept = self.get(call)
        assert kept is not None
        return kept

    def __len__(self) -> int:
        """How many replies are kept."""
        return self._database.execute("SELECT COUNT(*) FROM api_replies").fetchone()[0]

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"the replies {self._path}: {error}; give another file, or remove this one") from error
