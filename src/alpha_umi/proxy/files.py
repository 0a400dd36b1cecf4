"""The folder that records go to: whole lines, in files that no other process writes."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from alpha_umi.errors import UserError

_OF_RECORDS = "records-*.jsonl"


class RecordFiles:
    """Appends lines; each is there as a whole or not at all. Only the owner can read them. Used from one thread.

    Args:
        folder: Made if it isn't there.
        file_bytes: Size from which a new file is begun.
        disk_bytes: Of all record files that the folder has.

    Raises:
        UserError: The folder can't be written to.
    """

    def __init__(self, folder: Path, file_bytes: int, disk_bytes: int) -> None:
        self._folder, self._file_bytes = folder, file_bytes
        self._file: int | None = None
        self._size = self._number = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._left = disk_bytes - sum(file.stat().st_size for file in folder.glob(_OF_RECORDS))
            self._open()
        except OSError as error:
            raise UserError(
                f"--record {folder}: can't be written to ({error.strerror}); name a folder that can"
            ) from error

    def append(self, line: bytes) -> None:
        """Writes a line, given without its end.

        Raises:
            OSError: It can't be written, or the folder has its fill; the file is as it was before.
        """
        data = line + b"\n"
        if len(data) > self._left:
            raise OSError("the record folder has reached its size (--max-disk)")
        if self._file is None or (self._size and self._size + len(data) > self._file_bytes):
            self._open()
        assert self._file is not None
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError("no space left for a record")
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        self._left -= len(data)

    def close(self) -> None:
        """Ends the last file; one without a line goes."""
        if self._file is not None:
            os.close(self._file)
            if not self._size:
                self._path.unlink(missing_ok=True)
            self._file = None

    def _open(self) -> None:
        self.close()
        self._number += 1
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._path = self._folder / f"records-{stamp}-{self._number:04}-{secrets.token_hex(4)}.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._size = 0
