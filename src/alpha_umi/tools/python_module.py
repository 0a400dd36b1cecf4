"""A Python module as a tool source: its public functions run in a process of their own, which can be killed.

The process is started once and serves all calls. One that is stopped, because its time is over or the run was
cancelled, takes the process with it, and what the module kept in its variables; the next call starts another. The
process sees the same environment and files as the program: it keeps a tool's faults apart, it is no sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.machinery
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools.worker import read_frame, write_frame
from alpha_umi.trajectory import Tool

IMPORT_SECONDS = 60.0
"""How long importing the module may take."""
_EXIT_SECONDS = 1.0


class Worker:
    """A process that runs the functions of one module.

    It belongs to no event loop: a thread reads its replies.

    Attributes:
        ready: Done with the first reply when the module is imported.
    """

    def __init__(self, spec: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "alpha_umi.tools.worker", spec],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.ready: Future[dict[str, Any]] = Future()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[dict[str, Any]]] = {0: self.ready}
        self._lock = threading.Lock()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        """Whether it takes no more requests."""
        return self._ended

    def request(self, name: str, arguments: dict[str, Any]) -> Future[dict[str, Any]]:
        """Asks for a call; the future fails with `ToolError` if the process ends first."""
        reply: Future[dict[str, Any]] = Future()
        assert self._process.stdin is not None
        with self._lock:
            if self._ended:
                reply.set_exception(self._death())
                return reply
            number = next(self._numbers)
            self._waiting[number] = reply
            with contextlib.suppress(BrokenPipeError):  # then the reader finds out that the process has ended
                write_frame(self._process.stdin, {"id": number, "name": name, "arguments": arguments})
        return reply

    def kill(self) -> None:
        """Ends the process, and those it has started, at once."""
        if not self._ended:
            self._signal()
            self._reader.join(_EXIT_SECONDS)

    def close(self) -> None:
        """Lets the process end by itself for a moment, then kills it."""
        self._close_stdin()
        self._reader.join(_EXIT_SECONDS)
        self.kill()

    def _read(self) -> None:
        """Hands out replies until there are no more; then makes sure that the process has ended."""
        assert self._process.stdout is not None
        try:
            with contextlib.suppress(ValueError), self._process.stdout as replies:  # ValueError: this is no frame
                while (reply := read_frame(replies)) is not None:
                    future = self._waiting.pop(reply["id"])
                    if future.set_running_or_notify_cancel():
                        future.set_result(reply)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_SECONDS)
            self._signal()
            self._process.wait()
            with self._lock:
                self._ended = True
                self._close_stdin()
            for future in self._waiting.values():
                if future.set_running_or_notify_cancel():
                    future.set_exception(self._death())

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _signal(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def _death(self) -> ToolError:
        code = self._process.returncode
        return ToolError("died", f"the tools' process ended (exit code {code})")


class PythonModuleSource:
    """The public functions of a module, run by a `Worker`.

    Asynchronous functions run side by side; synchronous ones one after another, and each holds up all others.
    """

    def __init__(self, spec: str, worker: Worker, functions: Sequence[Mapping[str, Any]]) -> None:
        self.tools = tuple(Tool.of(f["name"], f["description"], f["parameters"]) for f in functions)
        self.writes = frozenset(f["name"] for f in functions if f["writes"])
        self.in_order = frozenset(f["name"] for f in functions if not f["asynchronous"])
        self._spec = spec
        self._worker = worker

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Calls a function.

        Raises:
            ToolError: ``exception`` (its type and message), ``invalid_arguments``, ``bad_result``, ``died``, or the
                kind of a `ToolError` that the function raised.
        """
        if self._worker.ended:
            self._worker = Worker(self._spec)
        worker = self._worker
        try:
            started = await asyncio.shield(asyncio.wrap_future(worker.ready))  # other calls wait for it too
            if "error" in started:
                raise ToolError("died", f"the tools' module could not be imported again: {': '.join(started['error'])}")
            reply = await asyncio.wrap_future(worker.request(name, arguments))
        except asyncio.CancelledError:
            worker.kill()
            raise
        if "error" in reply:
            raise ToolError(*reply["error"])
        return reply["text"]

    async def aclose(self) -> None:
        """Ends the process."""
        self._worker.close()


async def open_python_module(spec: str, seconds: float = IMPORT_SECONDS) -> PythonModuleSource:
    """Imports a module in a process of its own.

    Args:
        spec: A file (``tools.py``), or a module's name (``package.module``); that may be in the working directory.
        seconds: How long the import may take.

    Raises:
        UserError: There is no such module, importing it fails, or it has no function that can be a tool.
    """
    if not is_module(spec):
        raise UserError(f"--tools {spec!r}: there is no such file or module; give the path of a .py file, or a name")
    worker = Worker(spec)
    try:
        async with asyncio.timeout(seconds):
            started = await asyncio.wrap_future(worker.ready)
        if "error" in started:
            kind, reason = started["error"]
            if kind != UserError.__name__:
                reason = f"importing it failed: {kind}: {reason}; see that Python imports it by itself"
            raise UserError(f"--tools {spec!r}: {' '.join(reason.split())}")
    except TimeoutError as error:
        worker.kill()
        raise UserError(f"--tools {spec!r}: importing it took more than {seconds:g} seconds; do less there") from error
    except ToolError as error:
        raise UserError(
            f"--tools {spec!r}: importing it failed: {error}; see that Python imports it by itself"
        ) from error
    except BaseException:
        worker.kill()
        raise
    return PythonModuleSource(spec, worker, started["functions"])


def is_module(spec: str) -> bool:
    """Whether there is such a file, or a module whose first part can be found (from the working directory too)."""
    if spec.endswith(".py"):
        return Path(spec).is_file()
    parts = spec.split(".")
    if not all(part.isidentifier() for part in parts):
        return False
    return importlib.machinery.PathFinder.find_spec(parts[0], [os.getcwd(), *sys.path]) is not None
