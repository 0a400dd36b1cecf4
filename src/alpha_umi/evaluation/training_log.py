"""Reads the losses out of ``metrics.jsonl``, the log that training leaves in a run directory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from alpha_umi.errors import DataError

Key = tuple[str, str, str]
"""System, stage and role."""

Losses = dict[Key, dict[int, float]]
"""Loss a step, in the order of the steps."""


class _Line(BaseModel):
    stage: str
    step: int
    loss: dict[str, float | None]
    system: str | None = None


def read_losses(logs: Mapping[str, Path]) -> Losses:
    """Collects the loss curves of several logs.

    A line without ``loss`` (an event, an evaluation) is passed over, and so are losses that are null or not finite.
    Where a resumed run wrote a step again, the later line counts. A last line that was cut off by a kill is ignored.

    Args:
        logs: Path of each log, by the system it belongs to where a line does not name one.

    Raises:
        DataError: A log is missing or a line of it can't be read.
    """
    losses: Losses = {}
    for system, path in logs.items():
        for number, line in enumerate(_lines(path), 1):
            entry = _entry(path, number, line)
            if entry is None:
                continue
            for role, loss in entry.loss.items():
                if loss is not None and math.isfinite(loss):
                    losses.setdefault((entry.system or system, entry.stage, role), {})[entry.step] = loss
    return {key: dict(sorted(curve.items())) for key, curve in losses.items()}


def _lines(path: Path) -> list[str]:
    try:
        *lines, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except OSError as error:
        raise DataError(path, f"can't be read: {error.strerror}") from error
    return [*lines, last] if _whole(last) else lines


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _entry(path: Path, number: int, line: str) -> _Line | None:
    if not line.strip():
        return None
    try:
        value: Any = json.loads(line)
        return _Line.model_validate(value) if not isinstance(value, dict) or "loss" in value else None
    except json.JSONDecodeError as error:
        raise DataError(path, f"not JSON: {error.msg} at column {error.colno}", number) from error
    except RecursionError as error:
        raise DataError(path, "nested too deeply", number) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", number) from error
