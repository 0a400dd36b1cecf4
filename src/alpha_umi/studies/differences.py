"""Differences between systems over seeds and instructions.

Two things are drawn anew in every resample: the training seeds and the instructions, each with replacement and
independently of the other (a crossed bootstrap), the same for both systems. So an interval says what another seed *and*
other instructions could have given. With a single seed it says nothing about seeds, and with three it says little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from alpha_umi.evaluation.paired import sign_test
from alpha_umi.evaluation.statistics import Array, Interval, interval_of
from alpha_umi.studies.runs import Result

METRICS = ("plan_acc", "act_em", "hallu", "arg_f1", "rouge_l", "pass_rate", "calls", "generated_tokens")
IN_DOMAIN = ("I1-Inst", "I2-Inst", "I3-Inst")
OUT_OF_DOMAIN = ("I1-Tool", "I1-Cat", "I2-Cat")
LOWER_IS_BETTER = frozenset({"hallu"})
_STEP, _EPISODE = METRICS[:5], METRICS[5:]
_RESAMPLES = 2000

Verdict = Literal["holds", "does not hold", "undecided"]
Cells = dict[tuple[str, str], tuple[float, float]]
"""By split and name: the sum of a metric over an instruction's steps, and how many it scores."""


@dataclass(frozen=True)
class Figure:
    """One metric of one system: the mean over seeds and instructions, and its crossed interval."""

    value: float
    ci95: Interval
    seeds: int
    n: int


@dataclass(frozen=True)
class SeededDifference:
    """``b - a`` of one metric.

    Attributes:
        a: The first system's mean.
        b: The second's.
        difference: Of the two.
        ci95: Its crossed bootstrap interval.
        seeds: Training seeds that both have.
        n: Instructions that both have.
        higher: Instructions on which b is higher in the mean over seeds.
        lower: On which it is lower.
        p: Of the sign test over instructions.
    """

    a: float
    b: float
    difference: float
    ci95: Interval
    seeds: int
    n: int
    higher: int
    lower: int
    p: float

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"ci95": list(self.ci95)}


def cells(result: Result, metric: str, splits: Iterable[str]) -> Cells:
    """What a result says of a metric, instruction by instruction."""
    column = METRICS.index(metric) - (len(_STEP) if metric in _EPISODE else 0)
    found: Cells = {}
    for split in splits:
        for name, step, _, *figures in result["outcomes"].get(split, []):
            if (step < 0) != (metric in _EPISODE) or figures[column] is None:
                continue
            total, count = found.get((split, name), (0.0, 0.0))
            found[split, name] = (total + figures[column], count + 1.0)
    return found


def figure(results: Sequence[Result], metric: str, splits: Sequence[str]) -> Figure | None:
    """A system's mean over the results of its seeds; None where nothing is scored."""
    grids = _grids([[cells(result, metric, splits) for result in results]])
    if grids is None:
        return None
    sums, counts = grids
    ratios = _resampled(sums, counts)[:, 0]
    value = float(sums[0].sum() / counts[0].sum())
    return Figure(value, interval_of(ratios[:, None])[0], sums.shape[1], sums.shape[2])


def difference(a: Sequence[Result], b: Sequence[Result], metric: str, splits: Sequence[str]) -> SeededDifference | None:
    """Compares two systems over the seeds and instructions that both have; None where there are none."""
    seeds = sorted({one["seed"] for one in a} & {one["seed"] for one in b})
    chosen = [[next(one for one in side if one["seed"] == seed) for seed in seeds] for side in (a, b)]
    grids = _grids([[cells(result, metric, splits) for result in side] for side in chosen]) if seeds else None
    if grids is None:
        return None
    sums, counts = grids
    means = sums.sum(axis=(1, 2)) / counts.sum(axis=(1, 2))
    ratios = _resampled(sums, counts)
    change = (sums[1] - sums[0]).sum(axis=0)
    higher, lower = int((change > 1e-9).sum()), int((change < -1e-9).sum())
    return SeededDifference(
        float(means[0]), float(means[1]), float(means[1] - means[0]),
        interval_of((ratios[:, 1] - ratios[:, 0])[:, None])[0], sums.shape[1], sums.shape[2], higher, lower,
        sign_test(higher, lower),
    )  # fmt: skip


def verdict(found: SeededDifference, metric: str) -> Verdict:
    """Whether "b is better" holds: its interval lies on one side of zero, or not."""
    low, high = found.ci95
    if metric in LOWER_IS_BETTER:
        low, high = -high, -low
    return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


def win_rate(a: Sequence[Result], b: Sequence[Result], splits: Sequence[str]) -> dict[str, float]:
    """How b's episodes compare with a's by rule: solved beats unsolved, then fewer calls win; ties stand apart."""
    won = lost = tied = 0
    for seed in sorted({one["seed"] for one in a} & {one["seed"] for one in b}):
        first, second = (_episodes(next(one for one in side if one["seed"] == seed), splits) for side in (a, b))
        for key in first.keys() & second.keys():
            x, y = _rank(first[key]), _rank(second[key])
            won, lost, tied = won + (y > x), lost + (y < x), tied + (x == y)
    total = max(1, won + lost + tied)
    return {"win": won / total, "loss": lost / total, "tie": tied / total, "n": won + lost + tied}


def _rank(episode: Sequence[float]) -> tuple[float, float]:
    solved, calls, _ = episode
    return (solved, -calls if solved else 0.0)


def _episodes(result: Result, splits: Sequence[str]) -> Mapping[tuple[str, str], Sequence[float]]:
    return {
        (split, name): figures
        for split in splits
        for name, step, _, *figures in result["outcomes"].get(split, [])
        if step < 0
    }


def _grids(sides: Sequence[Sequence[Cells]]) -> tuple[Array, Array] | None:
    """Sums and counts of each side as arrays (sides, seeds, instructions), of what all of them have."""
    names = sorted(set.intersection(*(set(one) for side in sides for one in side)))
    if not names:
        return None
    table = np.array([[[one[name] for name in names] for one in side] for side in sides], dtype=np.float64)
    return table[..., 0], table[..., 1]


def _resampled(sums: Array, counts: Array) -> Array:
    """The means of resamples (R, sides), all sides with the same seeds and instructions."""
    _, seeds, names = sums.shape
    generator = np.random.default_rng(0)
    by_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=_RESAMPLES).astype(np.float64)
    by_name = generator.multinomial(names, np.full(names, 1 / names), size=_RESAMPLES).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _weighed(by_seed, by_name, sums) / _weighed(by_seed, by_name, counts)


def _weighed(by_seed: Array, by_name: Array, values: Array) -> Array:
    """(R, sides): each side's grid under each resample's weights."""
    return np.stack([np.einsum("rs,sn,rn->r", by_seed, side, by_name, optimize=True) for side in values], axis=1)
