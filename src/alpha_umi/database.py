"""SQLite files that outlive a process that is killed, and that several processes may share."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_WAIT_SECONDS = 60.0


def open_database(path: Path | None, *tables: str, any_thread: bool = False) -> sqlite3.Connection:
    """Opens a file in WAL mode, every statement its own transaction, its folder and tables made if they aren't there.

    What is written outlives the process, not a loss of power in the same moment.

    Args:
        path: The file; None keeps everything in memory.
        tables: ``CREATE TABLE IF NOT EXISTS`` statements.
        any_thread: Whether other threads than this one may use the connection, one at a time.

    Raises:
        sqlite3.Error: It is no SQLite file, or is locked for a minute.
        OSError: Its folder can't be made.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(
        path or ":memory:", isolation_level=None, timeout=_WAIT_SECONDS, check_same_thread=not any_thread
    )
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", *tables):
        database.execute(statement)
    return database
