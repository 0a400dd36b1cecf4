"""An engine for a run directory, in the precision that is fastest here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alpha_umi.compute import device, probe_precision
from alpha_umi.engines.local import LocalEngine
from alpha_umi.run_directory import load_run


@contextmanager
def open_engine(directory: str | Path, threads: int | None = None, context: int | None = None) -> Iterator[LocalEngine]:
    """Loads a run's models into this process.

    Args:
        directory: The run directory.
        threads: CPU threads; None keeps what is set.
        context: Longest transcript; None takes what the models can.

    Raises:
        RunDirectoryError: It isn't a finished run, or another renderer made it.
    """
    import torch

    run = load_run(directory)
    dtype = torch.bfloat16 if probe_precision() == "bf16" else torch.float32
    yield LocalEngine(run.models, run.renderer, dtype, device(), threads, context=context or run.context)
