"""Every exception the package raises on purpose.

    UmiError
    ├── UserError (ValueError)      what the user gave is wrong; the command line prints it and exits with 2
    │   ├── RecipeError             a recipe key, type or combination
    │   ├── DataError               a data file: names the file, the line and what is wrong there
    │   └── RunDirectoryError       a run directory: missing parts, or made with another renderer
    └── ToolError (RuntimeError)    a tool failed; becomes an observation, the run goes on

Anything else that escapes is a mistake of the program (exit code 1). What a *model* writes wrong is never an
exception: it is data, and becomes an observation that the planner reads.
"""

from __future__ import annotations

from pathlib import Path


class UmiError(Exception):
    """Root of all exceptions raised on purpose."""


class UserError(UmiError, ValueError):
    """What was given, what is allowed and what to do, in one sentence."""


class RecipeError(UserError):
    """A recipe has an unknown key, a value of the wrong type or an impossible combination."""


class DataError(UserError):
    """A data file is missing or malformed.

    Attributes:
        path: The file.
        line: Line number from 1, or None where the whole file is meant.
        reason: What is wrong there.
    """

    def __init__(self, path: str | Path, reason: str, line: int | None = None) -> None:
        self.path, self.line, self.reason = Path(path), line, reason
        where = f"{path}, line {line}" if line is not None else str(path)
        super().__init__(f"{where}: {reason}")


class RunDirectoryError(UserError):
    """A run directory lacks something, or was made by a renderer other than the one that reads it."""


class ToolError(UmiError, RuntimeError):
    """A tool did something wrong (a time-out, a server error, garbage).

    Attributes:
        kind: Short machine-readable name, such as ``timeout`` or ``server_error``.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)
