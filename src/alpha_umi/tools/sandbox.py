"""Runs model-written Python where it can do no harm: a process of its own, shut in by the kernel, gone afterwards.

What a program has: Python's standard library and a few pure packages (read-only), an empty scratch folder in memory,
and one process. What it has not: a network, any other file, the environment, other processes, a way to start one. It is
held to bounds of time, memory, scratch space and output. `jail` says how; where the platform can't do it, nothing is
run. What is left is the kernel's own system calls: this keeps a model's programs apart, a kernel exploit it does not
keep out.

Every program begins anew: no variable and no file is left of the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from alpha_umi.errors import ToolError, UserError

JAIL = Path(__file__).with_name("jail.py")
PACKAGES = ("sympy", "mpmath")
"""What a program may import beside the standard library, where it is installed."""
_REPORT_BYTES = 64 * 1024
_GRACE_SECONDS = 5.0
_PIECE_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 500
_PROBE = "import decimal, fractions, math, random, re\n1 + 1"
_NEEDED = (
    "it needs Linux 5.12 or newer with user namespaces: kernel.unprivileged_userns_clone=1, or "
    "kernel.apparmor_restrict_unprivileged_userns=0, or in a container --security-opt seccomp=unconfined"
)


@dataclass(frozen=True)
class SandboxLimits:
    """What one program may take.

    Attributes:
        seconds: Of wall-clock time, its start included.
        cpu_seconds: Of computing.
        memory_bytes: Of address space.
        scratch_bytes: Of all its files together, which are in memory, too.
        output_bytes: Of what it prints.
    """

    seconds: float = 20.0
    cpu_seconds: int = 10
    memory_bytes: int = 512 * 2**20
    scratch_bytes: int = 16 * 2**20
    output_bytes: int = 64 * 1024


@dataclass(frozen=True)
class _Ended:
    """How a program ended: what it printed, what it raised (type and traceback), its wait status if known."""

    printed: bytes
    error: tuple[str, str] | None
    status: int | None


class _Report(BaseModel):
    setup: str | None = None
    started: bool | None = None
    error: tuple[str, str] | None = None
    ended: int | None = None


class SandboxError(UserError):
    """This platform can't shut a program in, so that none is run."""


class Sandbox:
    """Runs programs, each in a sandbox of its own, several side by side if asked to.

    Args:
        limits: Of each program.
        packages: Installed packages that programs may import; those that are missing are left out.
        audit: Refuse what is impossible anyway with a clear message (`jail`); for tests of what holds without.
    """

    def __init__(
        self, limits: SandboxLimits | None = None, packages: Sequence[str] = PACKAGES, audit: bool = True
    ) -> None:
        self.limits = limits or SandboxLimits()
        self._packages = [(name, path) for name in packages if (path := _folder(name)) is not None]
        self._audit = audit

    async def run(self, code: str) -> str:
        """Runs a program; whatever happens, cancellation included, nothing of it is left when this returns.

        Returns:
            What it printed; the value of its last expression, unless None, is printed, too.

        Raises:
            ToolError: ``exception`` (the traceback's last lines), ``timeout``, ``memory_limit``, ``output_limit`` or
                ``died`` (ended by a signal).
            SandboxError: It can't be shut in here.
        """
        _check_platform()
        limits = self.limits
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(JAIL), env={}, cwd="/", start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(limits.seconds):
                ended = await self._ended(process, code)
        except TimeoutError as error:
            raise ToolError("timeout", f"the program had not ended after {limits.seconds:g} seconds") from error
        finally:
            await _end(process)
        return self._judged(ended)

    async def _ended(self, process: asyncio.subprocess.Process, code: str) -> _Ended:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        task = json.dumps(self._task(code)).encode()
        process.stdin.write(struct.pack("!I", len(task)) + task)
        printed, told = await asyncio.gather(
            _read(process.stdout, self.limits.output_bytes, process.stdin.close),
            _read(process.stderr, _REPORT_BYTES, process.stdin.close),
        )
        reports = _reports(told)
        if "started" not in reports:
            reason = reports.get("setup", "the sandbox ended")
            raise SandboxError(f"programs can't be run safely here ({reason}): {_NEEDED}")
        return _Ended(printed, reports.get("error"), reports.get("ended"))

    def _task(self, code: str) -> dict[str, Any]:
        limits = self.limits
        return {
            "code": code,
            "packages": self._packages,
            "audit": self._audit,
            "cpu_seconds": limits.cpu_seconds,
            "memory_bytes": limits.memory_bytes,
            "scratch_bytes": limits.scratch_bytes,
        }

    def _judged(self, ended: _Ended) -> str:
        most = self.limits.output_bytes
        output = ended.printed[:most].decode("utf-8", "replace")
        if len(ended.printed) > most:
            head = output[:_SHOWN_CHARACTERS]
            raise ToolError("output_limit", f"the program printed more than {most:,} bytes; it began with:\n{head}")
        if ended.error is not None:
            kind = "memory_limit" if ended.error[0] == "MemoryError" else "exception"
            before = f"\nprinted before:\n{output[-_SHOWN_CHARACTERS:]}" if output else ""
            raise ToolError(kind, ended.error[1] + before)
        if ended.status == 0:
            return output
        how = _how_ended(ended.status)
        if how == "SIGXCPU":
            raise ToolError("timeout", f"the program computed for more than {self.limits.cpu_seconds} seconds")
        raise ToolError("died", f"the program was ended by {how}")


async def open_sandbox(limits: SandboxLimits | None = None) -> Sandbox:
    """A sandbox that has been tried.

    Raises:
        SandboxError: This platform can't shut a program in.
    """
    sandbox = Sandbox(limits)
    try:
        await sandbox.run(_PROBE)
    except ToolError as error:
        raise SandboxError(f"not even a trivial program runs in the sandbox ({error}): {_NEEDED}") from error
    return sandbox


def _check_platform() -> None:
    if sys.platform != "linux":
        raise SandboxError(f"programs can't be run safely on {sys.platform}: {_NEEDED}")


def _folder(package: str) -> str | None:
    """Where a package is installed; it is not imported."""
    found = importlib.util.find_spec(package)
    places = found.submodule_search_locations if found is not None else None
    return next(iter(places), None) if places else None


def _how_ended(status: int | None) -> str:
    """A wait status in words; without one, the sandbox has been killed before it could tell."""
    if status is None:
        return "SIGKILL"
    number = status & 0x7F
    if number == 0:
        return f"its own exit with code {status >> 8 & 0xFF}"
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


async def _read(stream: asyncio.StreamReader, most: int, stop: Callable[[], None]) -> bytes:
    """Reads to the end, and keeps little more than ``most`` bytes; if there are more, the writer is stopped."""
    kept = bytearray()
    while piece := await stream.read(_PIECE_BYTES):
        if len(kept) <= most:
            kept += piece
        if len(kept) > most:
            stop()
    return bytes(kept)


def _reports(told: bytes) -> dict[str, Any]:
    """What the jail has reported. The program can write there, too, but only about itself, and never last."""
    found: dict[str, Any] = {}
    for line in told.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            found |= _Report.model_validate_json(line).model_dump(exclude_none=True)
    return found


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the sandbox: its guard first ends all that is in it; where that takes long, the kernel does."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.communicate()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
