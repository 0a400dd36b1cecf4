"""Episodes that are over, each on disk as soon as it is: one SQLite file, exported for judges.

The file is in WAL mode and several processes may share it: shards on one machine, or a command given again. An episode
that is there already stays as it is. What decides the results is kept beside them; a command that would mix other
results in is refused.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from alpha_umi.database import open_database
from alpha_umi.errors import UserError
from alpha_umi.trajectory import OURS, Trajectory, atomic_write

FILE = "episodes.sqlite"
_TABLES = (
    """CREATE TABLE IF NOT EXISTS episodes (
        split TEXT NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL, figures TEXT NOT NULL, trajectory TEXT NOT NULL,
        PRIMARY KEY (split, id)
    ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
_INSERT = "INSERT OR IGNORE INTO episodes VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Figures:
    """What can be counted of an episode without a judge.

    Attributes:
        stop_reason: Why it ended.
        steps: Planner decisions, on all branches together.
        calls: Tool calls made, malformed ones included, likewise.
        failed_calls: How many of them failed, by kind.
        generated_tokens: Tokens written by the models.
        prefill_tokens: Tokens read by the models.
        branches: How often the run went back to try something else.
    """

    stop_reason: str
    steps: int
    calls: int
    failed_calls: Mapping[str, int]
    generated_tokens: int
    prefill_tokens: int
    branches: int


@dataclass(frozen=True)
class Finished:
    """One episode that is over.

    Attributes:
        split: The set its query is of.
        id: Its query's.
        number: The query's place in its set.
        figures: What was counted.
        trajectory: What happened on the path that counts.
    """

    split: str
    id: str
    number: int
    figures: Figures
    trajectory: Trajectory

    def exported(self) -> str:
        """One line as `umi eval judge` reads it."""
        counted = {key: value for key, value in asdict(self.figures).items() if key != "prefill_tokens"}
        told = Trajectory(self.trajectory.tools, self.trajectory.messages, self.id, {OURS: counted})
        return told.to_json() + "\n"


class EpisodeStore:
    """The episodes of a folder; to be used as a context. None as the folder keeps them in memory only.

    Args:
        folder: Gets the file and the exports.
        settings: What decides the results, by name.

    Raises:
        UserError: The file can't be used, or has episodes of other settings.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, str]) -> None:
        self._folder = folder
        with self._explained():
            self._database = open_database(None if folder is None else folder / FILE, *_TABLES)
        self._check(settings)
        self._set(settings)

    def keep(self, episode: Finished) -> None:
        """Keeps an episode, so that it outlives the process; not a loss of power in the same moment."""
        figures, trajectory = json.dumps(asdict(episode.figures)), episode.trajectory.to_json()
        with self._explained():
            self._database.execute(_INSERT, (episode.split, episode.id, episode.number, figures, trajectory))

    def done(self, split: str) -> set[str]:
        """The ids of a set's episodes that are there."""
        with self._explained():
            return {row[0] for row in self._database.execute("SELECT id FROM episodes WHERE split = ?", (split,))}

    def splits(self) -> list[str]:
        """The sets that have episodes."""
        with self._explained():
            return [row[0] for row in self._database.execute("SELECT DISTINCT split FROM episodes ORDER BY split")]

    def take(self, other: Path) -> None:
        """Takes over the episodes and the settings of another folder.

        Raises:
            UserError: It has none, or they are of other settings.
        """
        if not (other / FILE).is_file():
            raise UserError(f"{other}: there is no {FILE} in it; give a folder that umi eval live --traces left")
        with EpisodeStore(other, dict(self._settings())) as source:
            with self._explained():
                rows = source._database.execute("SELECT * FROM episodes").fetchall()
                self._database.executemany(_INSERT, rows)
            self._set(dict(source._settings()))

    def read(self, split: str) -> Iterator[Finished]:
        """The episodes of a set, in the order of its queries."""
        with self._explained():
            rows = self._database.execute(
                "SELECT id, number, figures, trajectory FROM episodes WHERE split = ? ORDER BY number, id", (split,)
            )
            for name, number, figures, trajectory in rows:
                yield Finished(split, name, number, Figures(**json.loads(figures)), Trajectory.from_json(trajectory))

    def export(self, split: str) -> None:
        """Writes what there is of a set to ``live-{split}-episodes.jsonl``; the same bytes however it came about."""
        if self._folder is None:
            return
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")  # of two processes, the one that knows more writes last
        try:
            with atomic_write(self._folder / f"live-{split}-episodes.jsonl") as file:
                for episode in self.read(split):
                    file.write(episode.exported())
        finally:
            self._database.execute("ROLLBACK")

    def __enter__(self) -> EpisodeStore:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self._database.close()

    def _settings(self) -> list[tuple[str, str]]:
        return self._database.execute("SELECT name, value FROM settings").fetchall()

    def _set(self, settings: Mapping[str, str]) -> None:
        with self._explained():
            self._database.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", list(settings.items()))

    def _check(self, settings: Mapping[str, str]) -> None:
        other = sorted(name for name, value in self._settings() if settings.get(name, value) != value)
        if other:
            self._database.close()
            raise UserError(
                f"{self._folder} has episodes of another run ({', '.join(other)} differ): give another --traces, or "
                "remove this one"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"the episodes in {self._folder}: {error}; give another --traces") from error


def merge(folder: Path, shards: Sequence[Path]) -> dict[str, int]:
    """Brings the episodes of shards that ran in folders of their own into one, and exports it.

    Returns:
        Episodes by set.

    Raises:
        UserError: A shard has no episodes, or they are of other settings than the first's.
    """
    with EpisodeStore(folder, {}) as whole:
        for shard in shards:
            whole.take(shard)
        for split in whole.splits():
            whole.export(split)
        return {split: len(whole.done(split)) for split in whole.splits()}
