"""The bootstrap: deterministic, grouped, and covering about what it says."""

from __future__ import annotations

import numpy as np
import pytest

from alpha_umi.evaluation import statistics
from alpha_umi.evaluation.statistics import bootstrap_mean, bootstrap_means, bootstrap_ratios


def test_equal_seeds_give_equal_intervals() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean([*values, *range(20)], seed=3) != bootstrap_mean([*values, *range(20)], seed=4)


def test_values_that_agree_have_no_width() -> None:
    assert bootstrap_mean([0.25] * 7) == (0.25, 0.25)
    assert bootstrap_mean([1.0]) == (1.0, 1.0)


def test_steps_of_one_group_count_as_one_draw() -> None:
    values = [float(i % 2) for i in range(40) for _ in range(10)]
    low, high = bootstrap_mean(values)
    grouped_low, grouped_high = bootstrap_mean(values, [i // 10 for i in range(400)])
    assert grouped_high - grouped_low > 2.5 * (high - low)


def test_groups_may_have_different_numbers_of_scored_steps() -> None:
    # Two groups: (1, 1, 1) and (0). The mean of a resample is 1, 3/4 or 0.
    low, high = bootstrap_mean([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert (low, high) == (0.0, 1.0)
    # A group without a scored step is drawn but weighs nothing.
    assert bootstrap_mean([1.0, None, None], ["a", "b", "c"]) == (1.0, 1.0)


def test_small_blocks_give_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(30.0)[:, None]
    whole = bootstrap_ratios(values, np.ones_like(values), n=50)
    monkeypatch.setattr(statistics, "_BLOCK_CELLS", 90)
    assert bootstrap_ratios(values, np.ones_like(values), n=50) == whole


def test_columns_share_their_resamples() -> None:
    values = np.arange(12.0)
    first, second = bootstrap_means(np.stack([values, 2 * values], axis=1))
    assert second == pytest.approx(tuple(2 * bound for bound in first))


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_mean(generator.normal(0.3, 1.0, size=60).tolist(), n=400, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize("values", [[], [None, None]])
def test_no_value_is_an_error(values: list[float | None]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_mean(values)


def test_groups_must_fit() -> None:
    with pytest.raises(ValueError, match="2 values but 1 groups"):
        bootstrap_mean([1.0, 2.0], ["a"])
