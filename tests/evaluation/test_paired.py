"""Paired differences and the exact sign test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.evaluation.paired import paired_difference, sign_test

VALUES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=40)


@given(VALUES)
def test_exchanging_the_systems_turns_the_difference_round(rows):
    a, b, groups = zip(*rows, strict=True)
    one, other = paired_difference(a, b, groups, 200), paired_difference(b, a, groups, 200)
    assert one is not None and other is not None
    assert one.difference == pytest.approx(-other.difference)
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))
    assert (one.better, one.worse, one.p) == (other.worse, other.better, other.p)


@given(VALUES)
def test_a_system_does_not_differ_from_itself(rows):
    a, _, groups = zip(*rows, strict=True)
    found = paired_difference(a, a, groups, 100)
    assert found is not None
    assert (found.difference, found.ci95, found.better, found.worse, found.p) == (0.0, (0.0, 0.0), 0, 0, 1.0)


def test_what_is_hard_for_both_does_not_widen_the_interval():
    hard = [0.0, 1.0] * 50  # instructions differ a lot, the systems by a constant
    found = paired_difference(hard, [value + 0.1 for value in hard], range(100))
    assert found is not None
    assert found.ci95 == pytest.approx((0.1, 0.1))


def test_pairs_of_which_one_is_not_scored_are_left_out():
    found = paired_difference([1.0, None, 0.0], [1.0, 1.0, None], "abc")
    assert found is not None and found.n == 1
    assert paired_difference([None], [1.0], "a") is None


def test_steps_of_a_trajectory_count_as_one_for_the_sign_test():
    found = paired_difference([0.0] * 6, [1.0] * 6, "aaabbb")
    assert found is not None
    assert (found.better, found.worse, found.p) == (2, 0, 0.5)


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError):
        paired_difference([1.0], [1.0, 0.0], "ab")


@pytest.mark.parametrize(("better", "worse", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (8, 2, 0.109375), (3, 3, 1.0)])
def test_the_sign_test_has_the_binomial_p_value(better, worse, p):
    assert sign_test(better, worse) == pytest.approx(p)


def test_the_sign_test_is_exact_for_thousands_of_groups_too():
    assert sign_test(2600, 2400) == pytest.approx(0.0049, rel=0.02)
