"""Seeded percentile bootstrap over groups, for means and for several ratios at once.

Steps of one trajectory are not independent, so whole groups are drawn: a resample of ``G`` groups is a row of
multinomial weights, and every metric of a resample is ``weights @ numerators / weights @ denominators``.

What it is not: a correction for few groups. With one group, or where all groups agree, the interval has no width; that
says nothing about certainty.

Shapes: ``G`` groups, ``M`` metrics, ``R`` resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Array = NDArray[np.float64]

LEVEL = 0.95
# Weights of one block (R' x G) stay near 16 MB, whatever the number of groups.
_BLOCK_CELLS = 2_000_000


def bootstrap_mean(
    values: Sequence[float | None], groups: Sequence[Hashable] | None = None, n: int = 2000, seed: int = 0
) -> Interval:
    """The 95 % percentile interval of a mean.

    Args:
        values: One value a step; None is a step that the metric does not score. Its group is still drawn.
        groups: One name a value (the trajectory it belongs to); None makes every value its own group.
        n: How many resamples.
        seed: Of the generator; equal arguments give equal intervals.

    Raises:
        ValueError: There is no value, or ``groups`` has another length.
    """
    column = np.array([[np.nan if value is None else value] for value in values], dtype=np.float64).reshape(-1, 1)
    return bootstrap_means(column, groups, n, seed)[0]


def bootstrap_means(
    values: Array, groups: Sequence[Hashable] | None = None, n: int = 2000, seed: int = 0
) -> list[Interval]:
    """Intervals of the means of the columns of ``values`` (steps, M), from the same resamples; NaN is not scored.

    Raises:
        ValueError: A column has no value, or ``groups`` has another length than ``values``.
    """
    if not values.size or not (~np.isnan(values)).any(axis=0).all():
        raise ValueError("an interval needs at least one value for each metric")
    return bootstrap_ratios(*group_totals(values, groups), n, seed)


def group_totals(values: Array, groups: Sequence[Hashable] | None = None) -> tuple[Array, Array]:
    """Sums and counts of the columns of ``values`` (steps, M) in each group, both (G, M); NaN is not scored.

    Raises:
        ValueError: ``groups`` has another length than ``values``.
    """
    scored = ~np.isnan(values)
    if groups is None:
        return np.where(scored, values, 0.0), scored.astype(np.float64)
    if len(groups) != len(values):
        raise ValueError(f"{len(values)} values but {len(groups)} groups; give one group a value")
    rows: dict[Hashable, int] = {}
    index = np.array([rows.setdefault(group, len(rows)) for group in groups])
    numerators, denominators = np.zeros((len(rows), values.shape[1])), np.zeros((len(rows), values.shape[1]))
    np.add.at(numerators, index, np.where(scored, values, 0.0))
    np.add.at(denominators, index, scored)
    return numerators, denominators


def bootstrap_ratios(numerators: Array, denominators: Array, n: int = 2000, seed: int = 0) -> list[Interval]:
    """Intervals of ``sum(numerators) / sum(denominators)`` a column, both (G, M).

    A resample in which a metric's denominator is zero is left out for that metric.
    """
    return interval_of(resampled_ratios(numerators, denominators, n, seed))


def resampled_ratios(numerators: Array, denominators: Array, n: int, seed: int) -> Array:
    """The ratios of ``n`` resamples of the groups (R, M), all columns with the same weights; NaN where undefined."""
    groups = len(numerators)
    generator = np.random.default_rng(seed)
    block, ratios = max(1, _BLOCK_CELLS // groups), []
    for start in range(0, n, block):
        drawn = generator.multinomial(groups, np.full(groups, 1.0 / groups), size=min(block, n - start))
        weights = drawn.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append((weights @ numerators) / (weights @ denominators))
    return np.concatenate(ratios)


def interval_of(resamples: Array) -> list[Interval]:
    """The 95 % percentile interval of each column of ``resamples`` (R, M)."""
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.nanquantile(resamples, [tail, 1.0 - tail], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
