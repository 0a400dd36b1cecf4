"""What the benchmarks share: peers in processes of their own, their backbone, and the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every benchmark lets be set.

    Attributes:
        rounds: Timed, a peer.
        hidden: Width of the random backbone, a multiple of 64.
        layers: Its depth.
        intermediate: Width inside its feed-forward layers.
        vocabulary: Its tokens.
        threads: CPU threads.
        trajectories: A file of trajectories in place of the made-up ``toolbench`` shape.
    """

    rounds: int = 5
    hidden: int = 512
    layers: int = 8
    intermediate: int = 1536
    vocabulary: int = 4096
    threads: int = 2
    trajectories: Path | None = None


def random_backbone(settings: Settings) -> PreTrainedModel:
    """A Llama with random weights, the same for every peer."""
    from alpha_umi.training.nano import new_model
    from alpha_umi.training.recipe import NanoShape

    heads = settings.hidden // 64
    shape = NanoShape(
        hidden=settings.hidden, layers=settings.layers, heads=heads, kv_heads=max(1, heads // 2),
        intermediate=settings.intermediate, positions=16384,
    )  # fmt: skip
    return new_model(shape, settings.vocabulary, 0)


def measure(
    module: str,
    settings: Settings,
    shapes: Sequence[str],
    peers: Sequence[str],
    ratios: Callable[[dict[str, dict[str, float]]], dict[str, float]],
    on_peer: Callable[[str], None],
) -> dict[str, Any]:
    """Measures every peer on every shape, each in a process of its own.

    Args:
        module: Measures a peer when it is run, by `answer`.
        settings: A dataclass of the module.
        shapes: Of the transcripts.
        peers: Their names.
        ratios: Of what was found, by peer. Those of another shape than ``toolbench`` have its name appended.
        on_peer: Told what is measured next.

    Returns:
        ``ratios``, ``runs`` (what was found, by shape and peer), ``settings``, and the machine.

    Raises:
        UserError: A peer failed.
    """
    runs: dict[str, Any] = {}
    figures: dict[str, float] = {}
    for shape in shapes:
        found: dict[str, dict[str, float]] = {}
        for peer in peers:
            on_peer(f"{shape}: {peer}")
            found[peer] = in_a_process(module, settings, shape, peer)
        runs[shape] = found
        suffix = "" if shape == "toolbench" else f"_{shape}"
        figures |= {f"{name}{suffix}": value for name, value in ratios(found).items()}
    return {"ratios": figures, "runs": runs, "settings": plain(settings), "machine": machine(settings.threads)}


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON has them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(settings).items()}


def machine(threads: int) -> dict[str, Any]:
    """Where the figures come from."""
    import torch

    return {
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "torch": torch.__version__,
    }  # fmt: skip


def in_a_process(module: str, settings: Settings, shape: str, peer: str) -> dict[str, Any]:
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


def answer(work: Callable[[dict[str, Any], Any, Any], dict[str, Any]]) -> None:
    """Does in the peer's process what `in_a_process` asked for: ``work`` on settings, shape and peer."""
    task = json.loads(sys.stdin.read())
    settings = task["settings"]
    settings["trajectories"] = settings["trajectories"] and Path(settings["trajectories"])
    sys.stdout.write(json.dumps(work(settings, task["shape"], task["peer"])) + "\n")


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum under ``min_{name}`` and so on."""
    import statistics

    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {f"{key}_{name}": round(value, 3) for key, value in found.items()}
