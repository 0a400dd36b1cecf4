"""What `jail` runs when it is shut in: the model-written program, under resource limits.

The audit hook refuses what the kernel refuses anyway, early and in clear words. It is no boundary: code that gets at
ctypes gets around it.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import json
import linecache
import os
import resource
import sys
import traceback
import types
from typing import Any, NoReturn

PROGRAM = "program.py"
"""The name of the program in tracebacks."""
_TRACE_LINES = 12
_REFUSED = (
    "socket.", "ctypes.", "subprocess.", "os.system", "os.fork", "os.exec", "os.posix_spawn", "os.kill", "os.putenv",
    "pty.", "signal.pthread_kill", "fcntl.", "resource.", "syslog.", "webbrowser.",
)  # fmt: skip


def run(task: dict[str, Any]) -> NoReturn:
    """Runs the code; what it prints, and the value of a last expression, go to standard output."""
    reports = os.dup(2)
    os.dup2(0, 2)
    os.closerange(3, reports)
    os.closerange(reports + 1, 4096)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", "backslashreplace")
    sys.stderr = io.StringIO()
    sys.path.append("/packages")
    sys.dont_write_bytecode = True
    os.environ.update(HOME="/scratch", TMPDIR="/scratch", OPENBLAS_NUM_THREADS="1")
    os.write(reports, b'{"started": true}\n')
    _limit(task)
    error = _failure(task["code"], task["audit"])
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if error is not None:
        os.write(reports, json.dumps({"error": error}).encode() + b"\n")
    os._exit(0)


def _limit(task: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (task["cpu_seconds"], task["cpu_seconds"] + 1))
    for what, most in (
        (resource.RLIMIT_AS, task["memory_bytes"]),
        (resource.RLIMIT_FSIZE, task["scratch_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _failure(code: str, audit: bool) -> list[str] | None:
    """Runs the code; the type of what it raised and the last lines of the traceback, or None."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    linecache.cache[PROGRAM] = (len(code), None, code.splitlines(keepends=True), PROGRAM)
    if audit:
        sys.addaudithook(_audit)
    try:
        _execute(code, module.__dict__)
    except SystemExit as error:
        return None if error.code in (None, 0) else ["SystemExit", f"SystemExit: {error.code}"]
    except BaseException as error:
        return [type(error).__name__, _trace(error)]
    return None


def _execute(code: str, names: dict[str, Any]) -> None:
    tree = ast.parse(code, PROGRAM)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, PROGRAM, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), PROGRAM, "eval"), names)
        if value is not None:
            sys.stdout.write(f"{value!r}\n")


def _trace(error: BaseException) -> str:
    """The last lines of a traceback, of the program's own lines alone."""
    try:
        told = traceback.TracebackException.from_exception(error, limit=-_TRACE_LINES, compact=True)
        told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if frame.filename == PROGRAM])
        lines = "".join(told.format(chain=False)).splitlines()
    except BaseException:  # no memory left, or its own __str__ raises
        lines = [type(error).__name__]
    return "\n".join(lines[-_TRACE_LINES:])


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_REFUSED):
        raise PermissionError(f"{event} is not allowed in the sandbox")
