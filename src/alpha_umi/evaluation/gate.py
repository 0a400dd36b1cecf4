"""``--fail-if "pass_rate < -0.02"``: a comparison as a regression gate."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alpha_umi.errors import UserError
from alpha_umi.evaluation.compare import ALL, METRICS, Comparison

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_CONDITION = re.compile(
    r"\s*(?:(?P<split>[\w-]+):)?(?P<metric>[a-z_.0-9]+)\s*(?P<operator><=|>=|<|>)\s*(?P<bound>[-+]?\d*\.?\d+)\s*"
)


@dataclass(frozen=True)
class Condition:
    """What must not hold of a difference (B less A, a fraction).

    Attributes:
        text: As it was typed.
        split: Which split; `compare.ALL` for all together.
        metric: Of `compare.METRICS`.
        holds: Whether it holds of a difference.
    """

    text: str
    split: str
    metric: str
    holds: Callable[[float], bool]


def parse_condition(text: str) -> Condition:
    """Reads ``[SPLIT:]METRIC < NUMBER``.

    Raises:
        UserError: It is no such condition.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UserError(f"--fail-if {text!r}: write [SPLIT:]METRIC < NUMBER, such as 'pass_rate < -0.02'")
    metric = found["metric"]
    if metric not in METRICS:
        raise UserError(f"--fail-if {text!r}: no metric {metric!r}; there are {', '.join(METRICS)}")
    compare, bound = _OPERATORS[found["operator"]], float(found["bound"])
    return Condition(text.strip(), found["split"] or ALL, metric, lambda value: compare(value, bound))


def failed(conditions: Sequence[Condition], comparison: Comparison) -> list[str]:
    """The conditions that hold, each with the difference.

    Raises:
        UserError: The comparison has no such split, or not that metric of it.
    """
    told = []
    for condition in conditions:
        splits = comparison.splits
        split = condition.split if condition.split != ALL or ALL in splits else next(iter(splits))
        difference = splits.get(split, {}).get(condition.metric)
        if difference is None:
            metrics = dict.fromkeys(metric for found in splits.values() for metric in found)
            raise UserError(
                f"--fail-if {condition.text!r}: not in this comparison; its splits are {', '.join(splits)}, "
                f"its metrics {', '.join(metrics)}"
            )
        if condition.holds(difference.difference):
            told.append(f"{condition.text} ({split}: {difference.difference:+.4f})")
    return told
