"""What the benchmarks share: peers in processes of their own, their backbone, and the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class BackboneShape(Protocol):
    """Settings that say how large the random backbone is."""

    @property
    def hidden(self) -> int:
        """Its width, a multiple of 64."""
        ...

    @property
    def layers(self) -> int:
        """Its depth."""
        ...

    @property
    def intermediate(self) -> int:
        """Width inside its feed-forward layers."""
        ...

    @property
    def vocabulary(self) -> int:
        """Its tokens."""
        ...


def random_backbone(settings: BackboneShape) -> PreTrainedModel:
    """A Llama with random weights, the same for every peer."""
    from alpha_umi.training.nano import new_model
    from alpha_umi.training.recipe import NanoShape

    heads = settings.hidden // 64
    shape = NanoShape(
        hidden=settings.hidden, layers=settings.layers, heads=heads, kv_heads=max(1, heads // 2),
        intermediate=settings.intermediate, positions=16384,
    )  # fmt: skip
    return new_model(shape, settings.vocabulary, 0)


def plain(settings: object) -> dict[str, Any]:
    """Settings as JSON has them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(settings).items()}


def machine(threads: int) -> dict[str, Any]:
    """Where the figures come from."""
    import torch

    return {
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "torch": torch.__version__,
    }  # fmt: skip


def in_a_process(module: str, settings: object, shape: str, peer: str) -> dict[str, Any]:
    """A peer by itself, so that its memory is its own.

    Args:
        module: Measures the peer when it is run, by `answer`.
        settings: A dataclass of the module.
        shape: Of the transcripts.
        peer: Its name.

    Raises:
        UserError: It failed.
    """
    task = json.dumps({"settings": plain(settings), "shape": shape, "peer": peer})
    done = subprocess.run([sys.executable, "-m", module], input=task, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"{peer} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no output'}"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def answer(measure: Callable[[dict[str, Any], Any, Any], dict[str, Any]]) -> None:
    """Does in the peer's process what `in_a_process` asked for: ``measure`` of settings, shape and peer."""
    task = json.loads(sys.stdin.read())
    settings = task["settings"]
    settings["trajectories"] = settings["trajectories"] and Path(settings["trajectories"])
    sys.stdout.write(json.dumps(measure(settings, task["shape"], task["peer"])) + "\n")


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum under ``min_{name}`` and so on."""
    import statistics

    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {f"{key}_{name}": round(value, 3) for key, value in found.items()}
