"""Training attention block by block against torch's fused kernel: forward and backward, side by side in one process.

    python benchmarks/attention.py [--threads 2] [--json OUT]

The shapes are the nano backbone's (4 heads, 2 key heads, 64 wide, bf16) at 6,144 tokens a batch. Medians of 15 rounds,
the two taking turns; "step" is a whole optimizer-less training step of the shipped backbone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from alpha_umi.compute import autocast, probe_precision
from alpha_umi.run_directory import load_model, shipped_base
from alpha_umi.training.attention import block_attention, blockwise
from alpha_umi.training.objective import TokenLosses

ROUNDS, TOKENS, SCALE = 15, 6144, 64**-0.5


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """What transformers' sdpa attention does on a CPU: grouped keys copied, torch's kernel."""
    keys, values = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    return F.scaled_dot_product_attention(query, keys, values, is_causal=True, scale=scale)


def compared(one: Callable[[], None], other: Callable[[], None]) -> dict[str, float]:
    """Median seconds of both, taking turns, and how many times as long the second takes."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 3):
        for run, into in zip((one, other), seconds, strict=True):
            started = time.perf_counter()
            run()
            if number >= 3:
                into.append(time.perf_counter() - started)
    blocks, kernel = map(statistics.median, seconds)
    return {"blocks_s": round(blocks, 4), "fused_s": round(kernel, 4), "speedup": round(kernel / blocks, 2)}


def attention(length: int) -> dict[str, float]:
    """Forward and backward of attention alone."""
    rows = TOKENS // length
    query, key, value = (
        torch.randn(rows, heads, length, 64, dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2, 2)
    )
    grad = torch.randn(rows, 4, length, 64, dtype=torch.bfloat16)

    def run(attend: Callable[..., torch.Tensor]) -> None:
        attend(query, key, value, SCALE).backward(grad)

    return compared(lambda: run(block_attention), lambda: run(fused))


def step(length: int) -> dict[str, float]:
    """Forward and backward of the shipped backbone with every third token in the loss."""
    model = load_model(str(shipped_base())).float().train()
    losses = TokenLosses(model)
    ids = torch.randint(20, 4000, (TOKENS // length, length))
    select = torch.zeros_like(ids, dtype=torch.bool)
    select[:, ::3] = True
    precision = probe_precision()

    def run(context: Any) -> None:
        with context, autocast(precision):
            losses(ids, select, ids[select]).mean().backward()
        model.zero_grad()

    return compared(lambda: run(blockwise(model)), lambda: run(nullcontext()))


def main() -> None:
    """Measures both lengths and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    out: dict[str, Any] = {"threads": args.threads, "machine": platform.machine(), "torch": torch.__version__}
    for length in (512, 1024):
        out[f"attention_{length}"] = attention(length)
        out[f"step_{length}"] = step(length)
    text = json.dumps(out, indent=2)
    print(text)  # noqa: T201
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
