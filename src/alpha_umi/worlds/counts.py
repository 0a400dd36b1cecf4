"""What a set's episodes come to without a judge: how they ended, and what they took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alpha_umi.agent import StopReason
from alpha_umi.evaluation.statistics import bootstrap_mean
from alpha_umi.worlds.episodes import Figures

_MEANS: Mapping[str, Callable[[Figures], float]] = {
    "answered": lambda one: one.stop_reason == StopReason.ANSWERED,
    "gave_up": lambda one: one.stop_reason == StopReason.GAVE_UP,
    "mean_steps": lambda one: one.steps,
    "mean_calls": lambda one: one.calls,
    "mean_failed_calls": lambda one: sum(one.failed_calls.values()),
    "mean_generated_tokens": lambda one: one.generated_tokens,
    "mean_prefill_tokens": lambda one: one.prefill_tokens,
    "mean_branches": lambda one: one.branches,
}


def counts(episodes: Sequence[Figures], queries: int, seed: int = 0) -> dict[str, Any]:
    """Shares and means per episode with 95 % bootstrap intervals, stop reasons, and failed calls by kind.

    Nothing here says whether an answer is right: ``answered`` is the share of episodes that ended with one.

    Args:
        episodes: Those that are over.
        queries: How many there are in the set; fewer episodes are a part of it (a shard).
        seed: Of the intervals.
    """
    whole: dict[str, Any] = {"episodes": len(episodes), "queries": queries}
    if episodes:
        values = {name: [float(value(one)) for one in episodes] for name, value in _MEANS.items()}
        whole |= {name: math.fsum(one) / len(one) for name, one in values.items()}
        whole["ci95"] = {name: list(bootstrap_mean(one, seed=seed)) for name, one in values.items()}
    stopped = Counter(one.stop_reason for one in episodes)
    failed: Counter[str] = Counter()
    for one in episodes:
        failed.update(one.failed_calls)
    return whole | {"stop_reasons": _ordered(stopped), "failed_calls": _ordered(failed)}


def _ordered(counted: Counter[str]) -> dict[str, int]:
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
