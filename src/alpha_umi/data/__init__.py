"""Foreign formats, converted into the record once, at the edge, and exported from it.

``FORMATS`` is the registry; ``convert`` streams trajectories and rejected records; ``convert_file`` writes both and
counts them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import IO, Any

from alpha_umi.data import (
    alpha_umi,
    alpha_umi_chains,
    api_bank,
    fireact,
    gsm8k,
    hermes,
    ms_swift,
    openai_messages,
    paper_rows,
    seal_tools,
    sharegpt,
    tau_bench,
    toolalpaca,
    toolbench,
    toolllama,
    toolrl,
    tooltalk,
    tora,
    traject_bench,
    trl,
    xlam,
)
from alpha_umi.data.format import NO_OPTIONS, Format, Options, registry
from alpha_umi.data.records import BrokenLine, RecordError, Rejected, read_records
from alpha_umi.data.split import split_by
from alpha_umi.errors import DataError, UserError
from alpha_umi.trajectory import Trajectory, atomic_write, json_text

__all__ = [
    "FORMATS", "Format", "Options", "RecordError", "Rejected", "Summary", "convert", "convert_file", "recognise",
    "split_by",
]  # fmt: skip

FORMATS: Mapping[str, Format] = registry((
    alpha_umi.FORMAT,
    alpha_umi_chains.FORMAT,
    toolbench.FORMAT,
    toolllama.FORMAT,
    traject_bench.FORMAT,
    toolalpaca.FORMAT,
    tau_bench.FORMAT,
    tooltalk.FORMAT,
    toolrl.FORMAT,
    api_bank.FORMAT,
    seal_tools.FORMAT,
    fireact.FORMAT,
    gsm8k.FORMAT,
    tora.FORMAT,
    xlam.FORMAT,
    hermes.FORMAT,
    ms_swift.FORMAT,
    sharegpt.FORMAT,
    trl.FORMAT,
    openai_messages.FORMAT,
    paper_rows.FORMAT,
))  # fmt: skip
"""Every format, in the order in which ``auto`` tries them."""

_LOOKED_AT = 20


@dataclass(frozen=True)
class Summary:
    """What a conversion did.

    Attributes:
        elements: What the source holds, such as search trees.
        read: Records in it: as many, unless the format's elements hold several (a tree's paths).
        converted: Trajectories written.
        rejected: How many records each reason kept out.
        rejected_path: Where these records are, or None if there are none.
        written: Lines written; as many as trajectories unless the target format has other rows.
        from_format: The format they were read as.
    """

    elements: int
    read: int
    converted: int
    rejected: Mapping[str, int]
    rejected_path: Path | None
    written: int
    from_format: str

    def sentence(self) -> str:
        """The counts in words: ``13 of 15 paths of 8 trees converted (toolbench)``."""
        elements, records = FORMATS[self.from_format].words
        of = f" of {self.elements} {elements}" if elements != records else ""
        return f"{self.converted} of {self.read} {records}{of} converted ({self.from_format})"


def _format(name: str, what: Callable[[Format], object], verb: str) -> Format:
    found = FORMATS.get(name)
    if found is None or not what(found):
        able = [one.name for one in FORMATS.values() if what(one)]
        complaint = "unknown format" if found is None else f"a format that can't be {verb}:"
        raise UserError(f"{complaint} {name!r}; known are {', '.join(sorted(able))}.")
    return found


def recognise(path: str | Path) -> str:
    """The name of the format that the first records of a file (or of a folder's first file) are in.

    It is the first one that recognises more than half of those that any format recognises: a file may also hold chats
    without tools, which say nothing of their format.

    Raises:
        UserError: No format recognises them.
        DataError: The file can't be read.
    """
    readable = {name: one for name, one in FORMATS.items() if one.read is not None}
    heads: dict[Path, list[Any]] = {}
    looks: dict[str, list[bool]] = {}
    for name, one in readable.items():
        for file in one.files(path)[:1]:
            if file not in heads:
                heads[file] = [r for r in islice(read_records(file), _LOOKED_AT) if not isinstance(r, BrokenLine)]
            looks[name] = [one.looks_like(record) for record in heads[file]]
    if not any(looks.values()):
        raise DataError(path, "holds no record")
    known = sum(map(any, zip_longest(*looks.values(), fillvalue=False)))
    found = next((name for name, alike in looks.items() if sum(alike) > known / 2), None)
    if found is None:
        raise UserError(f"{path}: no format recognises these records; name it with --from ({', '.join(readable)}).")
    return found


def convert(
    path: str | Path,
    from_format: str,
    options: Options = NO_OPTIONS,
    on_element: Callable[[], None] = lambda: None,
) -> Iterator[Trajectory | Rejected]:
    """Streams a foreign file (or a directory of such files) as trajectories, and the records that can't be converted.

    ``on_element`` is called for each element of a file, before its records.

    Raises:
        UserError: There is no such format, or ``auto`` recognises none.
        DataError: The source can't be read or isn't JSON.
    """
    if from_format == "auto":
        from_format = recognise(path)
    return _format(from_format, lambda one: one.read, "read").convert(path, options, on_element)


def convert_file(
    src: str | Path,
    from_format: str,
    out: str | Path,
    on_progress: Callable[[int], None] | None = None,
    options: Options = NO_OPTIONS,
    to_format: str | None = None,
    change: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory,
) -> Summary:
    """Converts ``src`` to the file ``out``, and the records it rejects to ``out`` + ``.rejected.jsonl``.

    Both files appear together at the end or not at all; an older rejection file goes when there is nothing to reject.

    Args:
        src: File or directory in the foreign format.
        from_format: A name in ``FORMATS``, or ``auto``.
        out: Where the trajectories go: JSONL, or one JSON array if the name ends in ``.json``.
        on_progress: Called after each record with the number read so far.
        options: What the formats have to be told.
        to_format: Write this format instead of trajectories.
        change: Applied to every trajectory.

    Raises:
        UserError: There is no such format, or ``out`` can't be written.
        DataError: The source can't be read or isn't JSON; ``out`` is as it was before.
    """
    target = None if to_format is None else _format(to_format, lambda one: one.write or one.rows, "written")
    source = recognise(src) if from_format == "auto" else from_format
    rejected_path = Path(f"{out}.rejected.jsonl")
    reasons: Counter[str] = Counter()
    elements = read = written = 0
    with ExitStack() as files:
        good = files.enter_context(atomic_write(out))
        bad: IO[Any] | None = None

        def reject(record: Rejected) -> None:
            nonlocal bad
            bad = bad or files.enter_context(atomic_write(rejected_path))
            bad.write(record.to_json() + "\n")
            reasons[record.reason] += 1

        def count() -> None:
            nonlocal elements
            elements += 1

        def trajectories() -> Iterator[Trajectory]:
            nonlocal read
            for read, record in enumerate(convert(src, source, options, count), 1):
                if isinstance(record, Rejected):
                    reject(record)
                else:
                    yield change(record)
                if on_progress is not None:
                    on_progress(read)

        array = Path(out).suffix == ".json"
        for written, text in enumerate(_texts(trajectories(), target, options, reject), 1):
            good.write(("[\n" if written == 1 else ",\n") + text if array else text + "\n")
        if array:
            good.write("\n]\n" if written else "[]\n")
    rejected = dict(reasons.most_common())
    if not rejected:
        rejected_path.unlink(missing_ok=True)
    converted = read - sum(rejected.values())
    return Summary(elements, read, converted, rejected, rejected_path if rejected else None, written, source)


def _texts(
    trajectories: Iterator[Trajectory], target: Format | None, options: Options, reject: Callable[[Rejected], None]
) -> Iterator[str]:
    """What is written of the trajectories, one JSON text each."""
    if target is None:
        yield from (trajectory.to_json() for trajectory in trajectories)
    elif target.rows is not None:
        yield from (json_text(row) for row in target.rows(trajectories, options))
    else:
        assert target.write is not None
        for index, trajectory in enumerate(trajectories):
            try:
                text = json_text(target.write(trajectory))
            except RecordError as error:
                reject(Rejected(index, f"{target.name}: {error}", json.loads(trajectory.to_json()), "trajectories"))
            else:
                yield text
