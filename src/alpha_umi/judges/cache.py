"""Replies of judges, kept in one SQLite file, so that a command that was stopped goes on where it was.

A reply is kept under what decides it: the judge, the schema, the prompt, the vote and the seed. Replies that could not
be read are not kept; they are asked for again. Several processes may share the file.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from alpha_umi.database import open_database
from alpha_umi.errors import UserError
from alpha_umi.judges.judge import Spoken
from alpha_umi.judges.questions import Question

_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, arguments TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
) WITHOUT ROWID
"""


class ReplyCache:
    """Replies by question; to be closed, or used as a context. None as the path keeps them in memory only.

    Raises:
        UserError: The file can't be opened, or is no SQLite file of replies.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        with self._explained():
            self._database = open_database(path, _TABLE)

    def get(self, judge: str, question: Question, seed: int) -> Spoken | None:
        """What this judge said to this question, if it is known."""
        with self._explained():
            row = self._database.execute(
                "SELECT arguments, prompt_tokens, completion_tokens FROM replies WHERE key = ?",
                (_key(judge, question, seed),),
            ).fetchone()
        return None if row is None else Spoken(json.loads(row[0]), row[1], row[2])

    def put(self, judge: str, question: Question, seed: int, spoken: Spoken) -> None:
        """Keeps a reply, so that it outlives the process, however that ends; not a loss of power in the same moment."""
        row = (json.dumps(spoken.arguments, ensure_ascii=False), spoken.prompt_tokens, spoken.completion_tokens)
        with self._explained():
            self._database.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", (_key(judge, question, seed), *row)
            )

    def __len__(self) -> int:
        """How many replies are kept."""
        return self._database.execute("SELECT COUNT(*) FROM replies").fetchone()[0]

    def __enter__(self) -> ReplyCache:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self._database.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"the cache {self._path}: {error}; give another file, or remove this one") from error


def _key(judge: str, question: Question, seed: int) -> str:
    decides = [judge, question.name, question.schema, question.prompt, question.vote, seed]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
