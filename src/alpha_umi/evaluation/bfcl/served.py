"""The model behind a `base_url`: a `umi serve` of our own for the length of a run, and what it counted."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.request import urlopen

from alpha_umi.errors import UserError

_ANSWERED = re.compile(r'^umi_requests_total\{status="(\d+)"\} (\d+)$', re.MULTILINE)
_READY = re.compile(r"^serving .* at (http://\S+)$")
_STOP_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: Its base_url.
        log: What it writes to its standard error.
    """

    url: str
    log: Path
    process: subprocess.Popen[str]

    def check(self) -> None:
        """Raises if it runs no more.

        Raises:
            RuntimeError: It has ended by itself.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with code {self.process.returncode}; its log is {self.log}")

    def requests(self) -> Counter[str]:
        """How many chat completions it has answered, by HTTP status; none if it doesn't say so any more."""
        try:
            with urlopen(f"{self.url.removesuffix('/v1')}/metrics", timeout=60) as response:
                text = response.read().decode()
        except OSError:
            return Counter()
        return Counter({status: int(count) for status, count in _ANSWERED.findall(text)})


@contextmanager
def serving(name: str, options: Sequence[str], log: Path) -> Iterator[Server]:
    """A server on a free port of this machine, stopped at the end of the block whatever happens there.

    SIGTERM ends the block, too, as an exception.

    Args:
        name: Of the model, to clients.
        options: Of `umi serve`: the model and how it is run.
        log: Where its standard error goes.

    Raises:
        UserError: It doesn't start: what it said.
    """
    command = [sys.executable, "-m", "alpha_umi.cli", "serve", "--port", "0", "--served-model-name", name, *options]
    with log.open("w") as errors, _raising_sigterm():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            ready = _READY.match(process.stdout.readline().strip())
            if ready is None:
                process.wait()
                raise UserError(_last_words(log))
            yield Server(ready[1], log, process)
        finally:
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a process: asked first, and made to if it doesn't."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_words(log: Path) -> str:
    text = log.read_text("utf-8", "replace").strip()
    return text.rpartition("\n")[2].removeprefix("error: ") or f"the server didn't start; its log is {log}"


@contextmanager
def _raising_sigterm() -> Iterator[None]:
    """Has SIGTERM unwind the block, so that what it has started is stopped; only in the main thread."""

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
