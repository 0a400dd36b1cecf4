"""What is kept of an exchange while it passes: at most so many bytes of it, and of all exchanges together."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field

from alpha_umi.proxy.headers import Headers, secrets_in, value_of

_OVERHEAD = 4096
"""Bytes that an exchange is taken to need beside its bodies."""


class Budget:
    """Bytes that may be held at one time; used from several threads."""

    def __init__(self, total: int) -> None:
        self._left = total
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Whether there was room for so many more."""
        with self._lock:
            fits = count <= self._left
            self._left -= count if fits else 0
            return fits

    def give(self, count: int) -> None:
        """Gives back what was taken."""
        with self._lock:
            self._left += count


@dataclass
class Body:
    """A body as it passed, in its content encoding.

    Attributes:
        kind: Its content type, without parameters, in lower case.
        encoding: Its content encoding; empty for none.
        lost: Why it isn't kept; then it has no parts.
    """

    budget: Budget
    most: int
    kind: str = ""
    encoding: str = ""
    lost: str | None = None
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0

    def describe(self, headers: Headers) -> None:
        """Notes what the headers say of it."""
        self.kind = value_of(headers, "content-type").partition(";")[0].strip().lower()
        self.encoding = value_of(headers, "content-encoding").lower()

    def add(self, part: bytes) -> None:
        """Keeps a part, unless it is one too many."""
        if self.lost is not None:
            return
        if self._size + len(part) > self.most:
            self.lose(f"a body of more than {self.most} bytes")
        elif not self.budget.take(len(part)):
            self.lose("too many bodies at one time")
        else:
            self._size += len(part)
            self._parts.append(part)

    def lose(self, why: str) -> None:
        """Keeps nothing of it."""
        self.lost = why
        self.release()

    def release(self) -> None:
        """Gives its memory back."""
        self.budget.give(self._size)
        self._parts, self._size = [], 0

    def bytes(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


@dataclass
class Tape:
    """One exchange, as far as it has gone.

    Attributes:
        path: That was asked for, without the query.
        secrets: That the request's headers hold, to be masked wherever they turn up.
        request: Its body.
        response: Likewise.
        status: Of the response; None if there was none.
        complete: Whether the response came to its end.
        started: Seconds since the epoch.
        seconds: That it took.
    """

    path: str
    secrets: frozenset[str]
    request: Body
    response: Body
    status: int | None = None
    complete: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.time)
    seconds: float = 0.0

    @classmethod
    def of(cls, path: str, headers: Headers, budget: Budget, most: int) -> Tape | None:
        """A tape for a request with these headers; None where there is no room even for that."""
        if not budget.take(_OVERHEAD):
            return None
        tape = cls(path, secrets_in(headers), Body(budget, most), Body(budget, most))
        tape.request.describe(headers)
        return tape

    def answered(self, status: int, headers: Headers) -> None:
        """Notes how the response begins."""
        self.status = status
        self.response.describe(headers)

    def release(self) -> None:
        """Gives all its memory back."""
        self.request.release()
        self.response.release()
        self.request.budget.give(_OVERHEAD)
