"""Where and how models compute here: device, precision, threads."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp32"]


def probe_precision() -> Precision:
    """bf16 where a matrix product in it is clearly faster than in float32, as on CPUs with bf16 units and on GPUs."""
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(4):
                torch.mm(a, a)
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return "bf16" if seconds[torch.bfloat16] < 0.8 * seconds[torch.float32] else "fp32"


def device() -> torch.device:
    """The device models run on here."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: Precision) -> Any:
    """The context in which a forward pass runs at this precision."""
    import torch

    return torch.autocast(device().type, torch.bfloat16) if precision == "bf16" else nullcontext()


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores() -> None:
    """Lets torch compute on every core this process may run on."""
    import torch

    torch.set_num_threads(usable_cores())
