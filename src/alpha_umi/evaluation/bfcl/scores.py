"""What the harness left behind: the results of a model, and the scores it gave them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alpha_umi.errors import DataError
from alpha_umi.evaluation.bfcl.environment import registered
from alpha_umi.trajectory import atomic_write

NON_LIVE = (
    "simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple", "irrelevance",
)  # fmt: skip
LIVE = (
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance",
)  # fmt: skip
MULTI_TURN = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
SINGLE_TURN = (*NON_LIVE, *LIVE)

_FAILED = "Error during inference: "
_STATUS = re.compile(r"Error code: (\d{3})")
_UNANSWERED = re.compile(r"Error code: 5\d\d|Connection error|Request timed out")
_ID = re.compile(r'^\{"id": "([^"]+)"', re.MULTILINE)
_TOO_LONG = re.compile(r"\bcontext\b")


@dataclass(frozen=True)
class CategoryScore:
    """A category's figures.

    Attributes:
        accuracy: By the harness, of the entries with a result.
        correct: Entries that the harness takes as right.
        n: Entries with a result.
        entries: Of the benchmark.
        errors: Entries that the endpoint answered with an error, by what it was: ``context_length_exceeded``, another
            HTTP status, or ``other``. The harness takes such an entry as an answer without a call.
        correct_by_error: Of `correct`, entries with an error: where no call is right, that is what the harness sees.
    """

    accuracy: float
    correct: int
    n: int
    entries: int
    errors: dict[str, int] = field(default_factory=dict)
    correct_by_error: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Results:
    """Where the harness keeps a model's results and scores.

    Attributes:
        root: The harness's project root.
        model: The model's name.
    """

    root: Path
    model: str

    def results_file(self, category: str) -> Path:
        """A record an entry, in no order while the harness runs."""
        return self._folder("result", category) / f"BFCL_v4_{category}_result.json"

    def score_file(self, category: str) -> Path:
        """The figures, then a record for each wrong entry."""
        return self._folder("score", category) / f"BFCL_v4_{category}_score.json"

    def _folder(self, kind: str, category: str) -> Path:
        return self.root / kind / registered(self.model) / _group(category)

    def done(self, category: str) -> set[str]:
        """The ids of the entries that have a result."""
        path = self.results_file(category)
        return set(_ID.findall(path.read_text("utf-8"))) if path.exists() else set()

    def drop_unanswered(self, category: str) -> int:
        """Takes out the entries that no answer came for (a lost connection, a 5xx), so that they are asked again.

        Returns:
            How many.
        """
        path = self.results_file(category)
        records = _records(path)
        kept = [record for record in records if not _UNANSWERED.search(_failure(record))]
        if len(kept) < len(records):
            with atomic_write(path) as file:
                file.writelines(json.dumps(record) + "\n" for record in kept)
        return len(records) - len(kept)

    def score(self, category: str, entries: int) -> CategoryScore:
        """A category's figures.

        Args:
            category: Its name.
            entries: How many the benchmark has.

        Raises:
            DataError: The harness has scored nothing of it.
        """
        path = self.score_file(category)
        head, *wrong = _records(path) or [{}]
        if "accuracy" not in head:
            raise DataError(path, "the harness left no score there; its log says why")
        results = _records(self.results_file(category))
        failures = {str(one["id"]): _kind(text) for one in results if (text := _failure(one))}
        errors = dict(sorted(Counter(failures.values()).items()))
        right = failures.keys() - {str(one["id"]) for one in wrong}
        return CategoryScore(head["accuracy"], head["correct_count"], head["total_count"], entries, errors, len(right))


def _group(category: str) -> str:
    if category in MULTI_TURN:
        return "multi_turn"
    return "live" if category in LIVE else "non_live"


def _records(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _failure(record: dict[str, Any]) -> str:
    """What the harness noted in place of an answer; empty if there was one."""
    result = record.get("result")
    if "traceback" in record and isinstance(result, str) and result.startswith(_FAILED):
        return result
    return ""


def _kind(failure: str) -> str:
    status = _STATUS.search(failure)
    if status is None:
        return "other"
    return "context_length_exceeded" if status[1] == "400" and _TOO_LONG.search(failure) else status[1]
