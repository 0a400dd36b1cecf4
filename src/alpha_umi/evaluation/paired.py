"""Two systems on the same instructions: differences with paired bootstrap intervals, and an exact sign test.

Both systems are resampled with the same weights, so what makes an instruction easy or hard for both cancels out. The
sign test counts the groups (instructions or trajectories) on which one system is better than the other and asks how
likely a split at least as uneven is if neither is; ties say nothing and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from alpha_umi.evaluation.statistics import Array, Interval, group_totals, interval_of, resampled_ratios


@dataclass(frozen=True)
class Difference:
    """One metric of two systems, as fractions.

    Attributes:
        a: The first system's value.
        b: The second's.
        difference: ``b - a``.
        ci95: Its paired 95 % bootstrap interval.
        n: Values that both score.
        better: Groups on which the second has the higher mean.
        worse: Groups on which it has the lower one.
        p: Of the two-sided sign test; 1 where no group differs.
    """

    a: float
    b: float
    difference: float
    ci95: Interval
    n: int
    better: int
    worse: int
    p: float

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"ci95": list(self.ci95)}


def paired_difference(
    a: Sequence[float | None],
    b: Sequence[float | None],
    groups: Sequence[Hashable],
    resamples: int = 2000,
    seed: int = 0,
) -> Difference | None:
    """Compares value by value; pairs of which one isn't scored are left out. None if no pair is left.

    Args:
        a: The first system's values.
        b: The second's, of the same steps or episodes in the same order.
        groups: What is resampled: the trajectory, instruction or seed that each pair belongs to.
        resamples: How many.
        seed: Of the generator; equal arguments give equal intervals.

    Raises:
        ValueError: The lengths differ.
    """
    pairs = [(x, y, g) for x, y, g in zip(a, b, groups, strict=True) if x is not None and y is not None]
    if not pairs:
        return None
    values = np.array([[x, y] for x, y, _ in pairs], dtype=np.float64)
    numerators, denominators = group_totals(values, [group for _, _, group in pairs])
    ratios = resampled_ratios(numerators, denominators, resamples, seed)
    first, second = values.mean(axis=0)
    better, worse = _signs(numerators)
    return Difference(
        float(first), float(second), float(second - first), interval_of(ratios[:, 1:] - ratios[:, :1])[0],
        len(pairs), better, worse, sign_test(better, worse),
    )  # fmt: skip


def _signs(numerators: Array) -> tuple[int, int]:
    change = numerators[:, 1] - numerators[:, 0]
    return int((change > 1e-12).sum()), int((change < -1e-12).sum())


def sign_test(better: int, worse: int) -> float:
    """The exact two-sided p value of a fair coin that falls at least as unevenly."""
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**n)
