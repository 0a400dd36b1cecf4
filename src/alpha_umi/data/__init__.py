"""Foreign formats, converted into the record once, at the edge.

``convert`` streams trajectories and rejected records; ``convert_file`` writes both and counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from alpha_umi.data import alpha_umi, traject_bench
from alpha_umi.data.records import RecordError, Rejected
from alpha_umi.data.split import split_by
from alpha_umi.errors import UserError
from alpha_umi.trajectory import Trajectory, atomic_write

__all__ = ["FORMATS", "Converter", "RecordError", "Rejected", "Summary", "convert", "convert_file", "split_by"]


@dataclass(frozen=True)
class Converter:
    """A foreign format.

    Attributes:
        name: What ``--from`` takes.
        description: One line for the help text.
        convert: Streams the trajectories and rejected records of a file or directory.
    """

    name: str
    description: str
    convert: Callable[[Path], Iterator[Trajectory | Rejected]]


FORMATS: Mapping[str, Converter] = MappingProxyType(
    {
        converter.name: converter
        for converter in (
            Converter(
                "alpha-umi",
                "α-UMi's `conversations` (stage 2 and test files): planner, caller, observation, conclusion",
                alpha_umi.convert,
            ),
            Converter(
                "traject-bench",
                "TRAJECT-Bench, sequential or parallel, with the tools/ folder beside it",
                traject_bench.convert,
            ),
        )
    }
)


@dataclass(frozen=True)
class Summary:
    """What a conversion did.

    Attributes:
        read: Records in the source.
        converted: Trajectories written.
        rejected: How many records each reason kept out.
        rejected_path: Where these records are, or None if there are none.
    """

    read: int
    converted: int
    rejected: Mapping[str, int]
    rejected_path: Path | None


def convert(path: str | Path, from_format: str) -> Iterator[Trajectory | Rejected]:
    """Streams a foreign file (or a directory of such files) as trajectories, and the records that can't be converted.

    Raises:
        UserError: There is no such format.
        DataError: The source can't be read or isn't JSON.
    """
    converter = FORMATS.get(from_format)
    if converter is None:
        raise UserError(f"unknown format {from_format!r}; known are {', '.join(sorted(FORMATS))}.")
    return converter.convert(Path(path))


def convert_file(
    src: str | Path, from_format: str, out: str | Path, on_progress: Callable[[int], None] | None = None
) -> Summary:
    """Converts ``src`` to the JSONL file ``out``, and the records it rejects to ``out`` + ``.rejected.jsonl``.

    Both files appear together at the end or not at all; an older rejection file goes when there is nothing to reject.

    Args:
        src: File or directory in the foreign format.
        from_format: A name in ``FORMATS``.
        out: Where the trajectories go.
        on_progress: Called after each record with the number read so far.

    Raises:
        UserError: There is no such format, or ``out`` can't be written.
        DataError: The source can't be read or isn't JSON; ``out`` is as it was before.
    """
    records = convert(src, from_format)
    rejected_path = Path(f"{out}.rejected.jsonl")
    reasons: Counter[str] = Counter()
    read = 0
    with ExitStack() as files:
        good = files.enter_context(atomic_write(out))
        bad: IO[Any] | None = None
        for read, record in enumerate(records, 1):
            if isinstance(record, Rejected):
                bad = bad or files.enter_context(atomic_write(rejected_path))
                bad.write(record.to_json() + "\n")
                reasons[record.reason] += 1
            else:
                good.write(record.to_json() + "\n")
            if on_progress is not None:
                on_progress(read)
    rejected = dict(reasons.most_common())
    if not rejected:
        rejected_path.unlink(missing_ok=True)
    return Summary(read, read - sum(rejected.values()), rejected, rejected_path if rejected else None)
