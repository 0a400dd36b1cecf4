"""What every converter shares: reading foreign records one by one, and the ones that can't be converted."""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from alpha_umi.errors import DataError, UserError

_SPACE = " \t\r\n"
SUFFIXES = (".json", ".jsonl", ".json.xz", ".jsonl.xz", ".parquet")
_ROWS = 32  # of a Parquet file that are held at a time
_PAGES = 1 << 16  # bytes of a column that are read from the disk at a time


@dataclass(frozen=True)
class Rejected:
    """A record that could not be converted, kept so that nothing is lost silently.

    Attributes:
        index: Place of the record in its file, from 0.
        reason: What is wrong with it, worded so that equal causes have equal texts.
        record: The record as it was read.
        source: Name of the file, for sources of several files.
    """

    index: int
    reason: str
    record: Any
    source: str = ""

    def to_json(self) -> str:
        """One JSONL line, without its line break."""
        return json.dumps(
            {"source": self.source, "index": self.index, "reason": self.reason, "record": self.record},
            default=repr,
        )


class RecordError(ValueError):
    """A foreign record has no faithful form as a trajectory; becomes a ``Rejected``, the conversion goes on."""


def reason(error: ValidationError) -> str:
    """The first complaint of a validation, with list positions left out: ``conversations[].from: Input should be…``."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ""
    for part in first["loc"]:
        where += "[]" if isinstance(part, int) else f".{part}" if where else str(part)
    complaint = "Input should be an object" if first["type"] == "model_type" else first["msg"]
    return f"{where}: {complaint}" if where else complaint


def source_files(path: str | Path) -> list[Path]:
    """The data files that ``path`` names: itself, or, of a directory, its JSON and Parquet files by name.

    Raises:
        DataError: There is no such path, or the directory holds no such file (subdirectories are not searched).
    """
    path = Path(path)
    if not path.exists():
        raise DataError(path, "no such file")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES) and file.is_file())
    if not files:
        raise DataError(path, f"the directory holds no file that ends in {', '.join(SUFFIXES)}")
    return files


@dataclass(frozen=True)
class BrokenLine:
    """A line of a JSONL file that is not JSON: rejected by itself, the others are read."""

    text: str
    reason: str


def read_records(path: str | Path) -> Iterator[Any]:
    """Yields the records of a JSON array, of a JSON object, of a JSONL file (``.xz`` or not), or of a Parquet file.

    JSONL (by its name, or because one object follows another) is streamed, and a line that isn't JSON comes as a
    `BrokenLine`. The text of an array is held in memory as a whole, its records are parsed one at a time. Parquet (by
    its name) is streamed too.

    Raises:
        DataError: The file can't be read or, not being JSONL, is not JSON; with the line number.
        UserError: It is Parquet, and pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        yield from _rows(path)
        return
    try:
        with lzma.open(path) if path.suffix == ".xz" else open(path, "rb") as file:
            if ".jsonl" in path.suffixes:
                yield from _lines(file)
                return
            data = file.read()
        text = data.decode("utf-8")
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8: {error.reason}", error.object.count(b"\n", 0, error.start) + 1) from error
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(path, f"not a whole xz file: {error}") from error
    except OSError as error:
        raise DataError(path, f"can't be read: {error.strerror}") from error
    if text.lstrip(_SPACE)[:1] != "{":
        yield from _array(path, text)
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not isinstance(error, json.JSONDecodeError) or error.msg != "Extra data":
            raise DataError(path, _not_json(error), getattr(error, "lineno", 1)) from error
        yield from _lines(io.BytesIO(data))
        return
    yield value


def _lines(file: IO[bytes]) -> Iterator[Any]:
    for data in file:
        if not data.strip():
            continue
        try:
            value = json.loads(data)
        except UnicodeDecodeError as error:
            value = BrokenLine(data.decode("utf-8", "replace"), f"not UTF-8: {error.reason}")
        except (ValueError, RecursionError) as error:
            value = BrokenLine(data.decode("utf-8", "replace"), _not_json(error, with_place=False))
        yield value


def _array(path: Path, text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()

    def skip(at: int) -> int:
        while at < len(text) and text[at] in _SPACE:
            at += 1
        return at

    def fail(at: int, why: str) -> DataError:
        return DataError(path, why, text.count("\n", 0, at) + 1)

    at = skip(0)
    if text[at : at + 1] != "[":
        raise fail(at, "not a JSON array of records (for one record a line, name the file .jsonl)")
    at = skip(at + 1)
    first = True
    while text[at : at + 1] != "]":
        if not first:
            if text[at : at + 1] != ",":
                raise fail(at, "not JSON: a record is followed by neither a comma nor the end of the array")
            at = skip(at + 1)
        try:
            value, stop = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise fail(getattr(error, "pos", at), _not_json(error)) from error
        yield value
        at, first = skip(stop), False
    if skip(at + 1) < len(text):
        raise fail(at + 1, "not JSON: text after the end of the array")


def _rows(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet files are read with pyarrow; pip install 'alpha-umi[data]'") from error
    try:
        with parquet.ParquetFile(path, buffer_size=_PAGES, pre_buffer=False) as file:
            for batch in file.iter_batches(_ROWS, use_threads=False):
                yield from map(_as_json, batch.to_pylist())
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(path, f"not a Parquet file that can be read: {error}") from error


def _as_json(value: Any) -> Any:
    """A Parquet value as one that JSON has: bytes as text, and dates and the like as they are printed."""
    if isinstance(value, dict):
        return {str(key): _as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _not_json(error: Exception, with_place: bool = True) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}" + (f" at column {error.colno}" if with_place else "")
    return str(error)
