"""Numbers in answers are read as people write them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.evaluation.numbers import among, answer_in, equal, numbers_in


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 72.", 72),
        ("72", 72),
        ("She earns $1,234.50 a month.", Fraction(123450, 100)),
        ("The answer is \\$18", 18),
        ("It costs 5 dollars, so 3 cost 15 dollars", 15),
        ("The answer is 15 dollars for 3 of them.", 15),
        ("answer: -3", -3),
        ("it is \u2212 4 degrees", -4),
        ("10-3 is seven, that is 7", 7),
        ("1/2", Fraction(1, 2)),
        ("He eats 1 1/2 pies", Fraction(3, 2)),
        ("\\boxed{\\frac{3}{4}}", Fraction(3, 4)),
        ("The answer is $\\boxed{4}$.", 4),
        ("50%", 50),
        ("12kg", 12),
        (".5", Fraction(1, 2)),
        ("24.0", 24),
        ("1,2", 2),
        ("1,000,000 and no more", 10**6),
        ("2.5e+3", 2500),
        ("3/0", 0),
        ("#### 8", 8),
        ("Is the answer 5? No, the answer is 6 because 2 is even.", 6),
        ("The answer is unknown, but 7 fits", 7),
        ("no number in here, x2", None),
        ("", None),
    ],
)
def test_the_answer_is_read(text: str, number: Fraction | int | None) -> None:
    assert answer_in(text) == number


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("0.1", "0.10000000000000002", True), ("33.3", "33.300000000000004", True), ("1,200.0", "$1200", True),
     ("72", "73", False), ("0.5", "1/2", True), ("1000000", "1000001", True), ("1000", "1001", False)],
)  # fmt: skip
def test_numbers_are_compared_up_to_floating_point(one: str, other: str, same: bool) -> None:
    (first,), (second,) = numbers_in(one), numbers_in(other)
    assert equal(first, second) is same


def test_a_number_is_looked_for_in_texts() -> None:
    assert among(Fraction(24), ["72", "a 24.0 b"])
    assert not among(Fraction(24), ["124", "2.4"])


@given(st.integers(-(10**12), 10**12) | st.fractions(-(10**6), 10**6, max_denominator=1000))
def test_every_number_is_read_back(number: Fraction | int) -> None:
    assert answer_in(f"The answer is {number}.") == number
    if isinstance(number, int):
        assert answer_in(f"${number:,}") == number


@given(st.text(alphabet="0123456789.,-/ $%eE\\frac{}#answer is:", max_size=60) | st.just("9" * 5000))
def test_whatever_the_text_it_is_read(text: str) -> None:
    assert all(isinstance(number, Fraction) for number in numbers_in(text))
    answer_in(text)
