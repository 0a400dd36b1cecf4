"""A run's steps as JSON lines, written while it runs: one trajectory, or the tree of those that were tried.

Each line is one of

    {"trace": "begin", "session", "strategy", "tools", "messages"}                     what the run begins with
    {"trace": "step", "session", "step", "parent", "ended", "repeated", "messages",
     "logprob", "generated_tokens"}                                                    one step; parent 0 is the start
    {"trace": "end", "session", "stop_reason", "step"}                                 which step the run ends at

``messages`` of a step are those it added. ``logprob`` is the planner's, summed over the path, or null if nobody
asked for it; ``generated_tokens`` counts all that the run has written so far.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from alpha_umi.agent.limits import StopReason
from alpha_umi.agent.steps import Step
from alpha_umi.errors import DataError, UserError
from alpha_umi.trajectory import OURS, Message, Trajectory


class Trace:
    """Writes the steps of runs; those of several runs at once may be mixed in one file."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def begin(self, session: int, strategy: str, start: Trajectory) -> None:
        """A run begins."""
        record = json.loads(start.to_json())
        shown = {"tools": record.get("tools", []), "messages": record["messages"]}
        self._write("begin", session, {"strategy": strategy, **shown})

    def step(self, session: int, number: int, parent: int, step: Step, logprob: float | None, generated: int) -> None:
        """A step was taken."""
        self._write("step", session, {
            "step": number, "parent": parent, "ended": step.ended, "repeated": step.repeated,
            "messages": _messages(step.messages), "logprob": logprob, "generated_tokens": generated,
        })  # fmt: skip

    def end(self, session: int, reason: StopReason, at: int) -> None:
        """A run has ended."""
        self._write("end", session, {"stop_reason": reason, "step": at})

    def _write(self, kind: str, session: int, content: dict[str, Any]) -> None:
        self._file.write(json.dumps({"trace": kind, "session": session, **content}, ensure_ascii=False) + "\n")
        self._file.flush()


@contextmanager
def open_trace(path: Path | None) -> Iterator[Trace | None]:
    """A trace that goes to a file, which is begun anew; None writes none.

    Raises:
        UserError: The file can't be written.
    """
    if path is None:
        yield None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8", newline="\n", errors="backslashreplace")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}; choose another place") from error
    with file:
        yield Trace(file)


def read_trace(path: Path) -> Iterator[Trajectory]:
    """Every path of a trace, from the run's beginning to where it ended, as a trajectory.

    ``extra["alpha_umi"]["branch"]`` says of each its ``session``, its last ``step``, why it ``ended`` (None if the run
    was stopped there), and whether the run ``chose`` it. Steps that only repeated calls are left out. Of a file that
    was cut while it was written, the last line is passed over.

    Raises:
        DataError: The file can't be read, or a line is no line of a trace.
    """
    runs: dict[int, _Read] = {}
    for number, line in enumerate(_lines(path), 1):
        try:
            record = json.loads(line)
            if record["trace"] == "begin":
                yield from runs.pop(record["session"], _Read()).paths()
            runs.setdefault(record["session"], _Read()).take(record)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(path, f"no line of a trace: {error}", number) from error
    for run in runs.values():
        yield from run.paths()


class _Read:
    """The lines of one run."""

    def __init__(self) -> None:
        self.begin: dict[str, Any] = {"session": 0, "tools": [], "messages": []}
        self.steps: dict[int, dict[str, Any]] = {}
        self.chosen: int | None = None

    def take(self, record: dict[str, Any]) -> None:
        if record["trace"] == "begin":
            self.begin = record
        elif record["trace"] == "step":
            self.steps[record["step"]] = record
        else:
            self.chosen = record["step"]

    def paths(self) -> Iterator[Trajectory]:
        parents = {step["parent"] for step in self.steps.values() if not step["repeated"]}
        for number, step in self.steps.items():
            if number not in parents and not step["repeated"]:
                yield self._path(number)

    def _path(self, leaf: int) -> Trajectory:
        messages: list[Any] = []
        at = leaf
        while at:
            messages[:0] = self.steps[at]["messages"]
            at = self.steps[at]["parent"]
        branch = {
            "session": self.begin["session"], "step": leaf, "ended": self.steps[leaf]["ended"],
            "chose": leaf == self.chosen,
        }  # fmt: skip
        record = {"tools": self.begin["tools"], "messages": [*self.begin["messages"], *messages]}
        return Trajectory.from_json(json.dumps({**record, "extra": {OURS: {"branch": branch}}}))


def _messages(messages: Sequence[Message]) -> list[Any]:
    return json.loads(Trajectory((), tuple(messages)).to_json())["messages"]


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"can't be read: {error}") from error
    yield from text.split("\n")[:-1]  # what follows the last line break was cut
