"""Resamples of queries, for figures that are no plain ratio; ratios have `evaluation.statistics`.

Shapes: ``G`` queries, ``K`` columns, ``R`` resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alpha_umi.evaluation.statistics import LEVEL, Interval

_RESAMPLES, _BLOCK = 2000, 250  # a block's weights (R' x G) are all that is in memory at one time


def resampled(rows: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Column sums (R, K) of resamples of the rows (G, K), drawn whole and with replacement."""
    shares = np.full(len(rows), 1 / len(rows))
    blocks = (generator.multinomial(len(rows), shares, size=_BLOCK) @ rows for _ in range(_RESAMPLES // _BLOCK))
    return np.concatenate(list(blocks))


def percentile_interval(values: NDArray[np.float64]) -> Interval | None:
    """The 95 % percentile interval of resampled figures (R); None if none of them is a number."""
    if np.isnan(values).all():
        return None
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
