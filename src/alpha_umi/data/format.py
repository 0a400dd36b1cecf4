"""What a foreign format is: how its records are recognised, read into the record, and written again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from pydantic import ValidationError

from alpha_umi.data.records import BrokenLine, RecordError, Rejected, read_records, reason, source_files
from alpha_umi.errors import UserError
from alpha_umi.trajectory import Trajectory

PaperRole = Literal["backbone", "planner", "caller", "summarizer"]
Wording = Literal["toolbench", "toolalpaca"]
"""Of the paper's prompts."""


@dataclass(frozen=True)
class Options:
    """What a conversion may be told beside its source.

    Attributes:
        tools: A file of tool documents, for formats whose records only name their tools.
        role: Whose rows ``paper-rows`` writes,
        wording: and in which wording of the prompts.
    """

    tools: Path | None = None
    role: PaperRole | None = None
    wording: Wording = "toolbench"

    @classmethod
    def of(cls, tools: Path | None = None, role: str | None = None, wording: str = "toolbench") -> Options:
        """Options as typed on a command line.

        Raises:
            UserError: There is no such role or wording.
        """
        if role is not None and role not in get_args(PaperRole):
            raise UserError(f"unknown role {role!r}; known are {', '.join(get_args(PaperRole))}.")
        return cls(tools, cast("PaperRole | None", role), wording_of(wording))


def wording_of(text: str) -> Wording:
    """A wording as typed on a command line.

    Raises:
        UserError: There is no such wording.
    """
    if text not in get_args(Wording):
        raise UserError(f"unknown wording {text!r}; known are {', '.join(get_args(Wording))}")
    return cast("Wording", text)


NO_OPTIONS = Options()


def _itself(record: Any, context: Any) -> Iterable[Any]:
    return (record,)


@dataclass(frozen=True)
class Format:
    """A foreign format.

    Attributes:
        name: What ``--from`` and ``--to`` take.
        description: One line for ``umi data formats``.
        read: Makes the trajectory with this id of one record; the last argument is the file's context. Raises
            `RecordError` (or `ValidationError`, `RecursionError`, `ValueError`) where there is no faithful trajectory.
        looks_like: Whether a record is of this format, for ``--from auto``; must not raise, whatever the JSON.
        units: The records that one element of the file holds, for formats that nest them.
        words: What elements and their records are called, in the plural, for formats that nest them.
        context: What the records of a file need beside themselves, such as tool documents.
        write: A trajectory as one JSON value of this format; raises `RecordError` where the format can't carry it.
        rows: Writes all trajectories at once, for formats whose rows aren't one a trajectory.
        files: The files of a path; by default the file itself, or the JSON files of a folder.
    """

    name: str
    description: str
    read: Callable[[Any, str, Any], Trajectory] | None = None
    looks_like: Callable[[Any], bool] = lambda record: False
    units: Callable[[Any, Any], Iterable[Any]] = _itself
    words: tuple[str, str] = ("records", "records")
    context: Callable[[Path, Options], Any] = lambda file, options: None
    write: Callable[[Trajectory], Any] | None = None
    rows: Callable[[Iterable[Trajectory], Options], Iterator[Any]] | None = None
    files: Callable[[str | Path], list[Path]] = source_files

    def convert(
        self,
        path: str | Path,
        options: Options = NO_OPTIONS,
        on_element: Callable[[], None] = lambda: None,
    ) -> Iterator[Trajectory | Rejected]:
        """Streams the trajectories of a file or folder, and the records that can't be converted, with the reason.

        Args:
            path: The file or folder.
            options: What the format has to be told.
            on_element: Called for each element of a file, before its records; there is one record or more in each.

        Raises:
            DataError: A file can't be read or is not JSON as a whole.
        """
        for file in self.files(path):
            context = self.context(file, options)
            stem = file.name.split(".")[0]
            for index, record in enumerate(self._records(file, context, on_element)):
                if isinstance(record, BrokenLine):
                    yield Rejected(index, record.reason, record.text, file.name)
                    continue
                try:
                    yield self.convert_record(record, f"{stem}-{index}", context)
                except RecordError as error:
                    yield Rejected(index, str(error), record, file.name)

    def _records(self, file: Path, context: Any, on_element: Callable[[], None]) -> Iterator[Any]:
        for element in read_records(file):
            on_element()
            yield from self._units(element, context)

    def _units(self, element: Any, context: Any) -> Iterable[Any]:
        """The element's records; the element itself where it doesn't hold what it should, so that it is rejected."""
        if isinstance(element, BrokenLine):
            return [element]
        try:
            return list(self.units(element, context)) or [element]
        except (ValidationError, RecursionError, ValueError, LookupError, TypeError, AttributeError):
            return [element]

    def convert_record(self, record: Any, name: str, context: Any = None) -> Trajectory:
        """Converts one record; ``name`` becomes the trajectory's id.

        Raises:
            RecordError: It is not a record of this format, or its parts don't fit together.
        """
        assert self.read is not None, f"{self.name} can only be written"
        try:
            return self.read(record, name, context)
        except RecordError:
            raise
        except ValidationError as error:
            raise RecordError(reason(error)) from error
        except RecursionError as error:
            raise RecordError("nested too deeply") from error
        except ValueError as error:
            raise RecordError(str(error)) from error


def registry(formats: Iterable[Format]) -> Mapping[str, Format]:
    """Formats by name."""
    return MappingProxyType({one.name: one for one in formats})
