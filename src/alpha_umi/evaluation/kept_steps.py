"""Every scored step of a static evaluation on disk, one JSON object a line, so that two evaluations can be paired."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from alpha_umi.errors import DataError
from alpha_umi.evaluation.metrics import StepPrediction, StepReference, step_scores
from alpha_umi.evaluation.strict import strict_step_scores
from alpha_umi.trajectory import Decision, atomic_write


@dataclass(frozen=True)
class ScoredStep:
    """A step and what it scored.

    Attributes:
        trajectory: The id of its trajectory.
        step: Its number among the trajectory's scored steps, from 0.
        decision: The reference's: ``call``, ``finish`` or ``give_up``.
        tools: Names of the tools that the reference calls.
        predicted: The predicted decision.
        called: Names that were called.
        paper: Value of each metric by the paper's rules; None where it does not score the step.
        strict: The same by the strict ones.
    """

    trajectory: str
    step: int
    decision: str
    tools: tuple[str, ...]
    predicted: str
    called: tuple[str, ...]
    paper: Mapping[str, float | None]
    strict: Mapping[str, float | None]


_STEP = TypeAdapter(ScoredStep)


def scored_steps(predictions: Sequence[tuple[str, StepReference, StepPrediction]]) -> list[ScoredStep]:
    """Steps in the order of the data, numbered within their trajectories."""
    counts: dict[str, int] = {}
    return [_scored(name, counts, reference, prediction) for name, reference, prediction in predictions]


def _scored(name: str, counts: dict[str, int], reference: StepReference, prediction: StepPrediction) -> ScoredStep:
    number = counts[name] = counts.get(name, -1) + 1
    made = prediction.calls if prediction.decision is Decision.CALL else ()
    return ScoredStep(
        name, number, reference.decision.name.lower(), tuple(call.name for call in reference.calls),
        prediction.decision.name.lower(), tuple(call.name for call in made),
        {**step_scores(reference, prediction)}, {**strict_step_scores(reference, prediction)},
    )  # fmt: skip


def write_steps(path: Path, steps: Sequence[ScoredStep]) -> None:
    """Writes them all, or nothing."""
    with atomic_write(path) as file:
        for step in steps:
            file.write(json.dumps(asdict(step), ensure_ascii=False) + "\n")


def read_steps(path: Path) -> list[ScoredStep]:
    """Reads what `write_steps` wrote.

    Raises:
        DataError: A line is something else.
    """
    steps = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                steps.append(_STEP.validate_json(line))
            except ValidationError as error:
                what = error.errors()[0]
                where = ".".join(map(str, what["loc"]))
                raise DataError(path, f"no scored step: {where} {what['msg']}".replace("  ", " "), number) from error
    return steps
