"""What the paper says of its systems, relation by relation, and whether it holds here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alpha_umi.studies.differences import (
    IN_DOMAIN,
    OUT_OF_DOMAIN,
    SeededDifference,
    Verdict,
    difference,
    verdict,
)
from alpha_umi.studies.runs import Result

By = Mapping[tuple[str, str], Sequence[Result]]
"""Results by system and size."""

_QUALITY = ("plan_acc", "act_em", "arg_f1", "hallu", "pass_rate")
CLAIMS: tuple[tuple[str, str], ...] = (("umi", "single"), ("umi", "multi-one-stage"), ("umi", "umi-no-reuse"))
"""(better, worse) as the paper has it, on every metric; below, the controls, where it claims nothing."""

CONTROLS: tuple[tuple[str, str], ...] = (
    ("umi", "single-multitask"), ("umi", "single-compute"), ("umi", "single-tripled"), ("umi", "single-best-of-n"),
    ("umi", "umi-swapped"), ("umi", "umi-no-rationale"), ("umi-alora", "umi"), ("umi-lora", "umi"),
    ("umi-large-planner", "umi"), ("umi-large-caller", "umi"), ("umi-dfsdt", "umi"), ("umi-dfsdt", "single-dfsdt"),
)  # fmt: skip
_DOMAINS: Mapping[str, Sequence[str]] = {"in domain": IN_DOMAIN, "out of domain": OUT_OF_DOMAIN}


@dataclass(frozen=True)
class Relation:
    """That ``better`` is better than ``worse``, on one metric in one domain at one size."""

    better: str
    worse: str
    size: str
    domain: str
    metric: str
    claimed: bool
    found: SeededDifference
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        named = {key: getattr(self, key) for key in ("better", "worse", "size", "domain", "metric", "claimed")}
        return {**named, "verdict": self.verdict, **self.found.to_json()}


def relations(results: By) -> list[Relation]:
    """Every relation of which both systems are there, the paper's own first."""
    sizes = list(dict.fromkeys(size for _, size in results))
    return [
        relation
        for pairs, claimed in ((CLAIMS, True), (CONTROLS, False))
        for better, worse in pairs
        for size in sizes
        for relation in _of(results, better, worse, size, claimed)
    ]


def _of(results: By, better: str, worse: str, size: str, claimed: bool) -> list[Relation]:
    a, b = results.get((worse, size)), results.get((better, size))
    if not a or not b:
        return []
    made = []
    for domain, splits in _DOMAINS.items():
        for metric in _QUALITY:
            found = difference(a, b, metric, splits)
            if found is not None:
                judged = verdict(found, metric)
                made.append(Relation(better, worse, size, domain, metric, claimed, found, judged))
    return made
