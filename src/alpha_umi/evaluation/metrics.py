"""The five static metrics in ``paper`` mode (α-UMi, arXiv 2401.07324, section 4.1), equal to the reference's figures.

The reference is ``GLPFT/inference_utils/toolbench/evaluate-multi_agent.py`` of X-PLUG/Multi-LLM-Agent. Its rules, and
what is done here where its script would stop with an exception:

* *Plan ACC*: the decision is right, over all steps.
* *Act. EM*: the tool's name is right, over the steps whose reference is a call; arguments play no part.
* A step without a call (another decision, or a caller's text without ``Action:``) has the name ``none`` and the
  arguments ``{}``; so ``none`` is right where the reference has no name either.
* *Hallu.*: the predicted name is not in the tool list, over *all* steps, whatever their reference. ``none`` is no
  hallucination, an empty name that was written is one.
* *Arg. F1*: over the steps whose reference is a call. A wrong name is 0, before anything is parsed.
* With the right name, a step whose *reference* arguments are not JSON is left out.
* Reference arguments ``{}``: 1 if the prediction is ``{}`` too, else 0 (extra arguments are all wrong).
* Other reference arguments: F1 of the keys; a right key with another value counts a half. Values are compared as
  Python compares parsed JSON (``1 == 1.0 == true``, order of keys irrelevant); of a doubled key the last one counts.
* Predicted arguments that are no JSON object are 0; reference arguments that are JSON but no object are 0 as well.
* *easy F1* is the part with reference arguments ``{}``, *hard F1* the rest; a wrong name counts 0 in both.
* *ROUGE-L*: F of ``rouge`` 1.0.1 (sentences split at ``.``, summary level), over the steps whose reference finishes; a
  step that predicts no answer is compared as the word ``none``.
* An answer, or a reference, without any text but dots is 0 (the reference's script stops there).
* A metric without a scored step is None (the reference divides by zero, or prints 0 for ROUGE-L and Act. EM).

The paper has one call a step. With several, Act. EM compares the names as a multiset; the k-th reference call of a
name is paired with the k-th predicted call of that name, Arg. F1 of the step is the mean over the pairs and a 0 for
each call, on the side that has more of them, that found no partner; Hallu. counts a step once if any of its names is
not in the list.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from alpha_umi.evaluation.statistics import Interval, bootstrap_means
from alpha_umi.trajectory import Decision, ToolCall

Metric = Literal["plan_acc", "act_em", "hallu", "arg_f1", "rouge_l", "easy_f1", "hard_f1"]
METRICS: tuple[Metric, ...] = ("plan_acc", "act_em", "hallu", "arg_f1", "rouge_l", "easy_f1", "hard_f1")
NO_CALL = ToolCall(id="", name="none", arguments="{}")
NO_ANSWER = "none"

_Part = Literal["easy", "hard", "both"]


@dataclass(frozen=True)
class StepReference:
    """What the data says a step should be.

    Attributes:
        tool_names: Names of the tools the agent was shown.
        decision: The planner's decision.
        calls: The calls, if the decision is to call.
        answer: The summarizer's answer, if the decision is to finish.
        parameters: Parameter names that each tool declares; a tool that is missing takes any name, and None means that
            nothing is known. Only the strict metrics use it.
    """

    tool_names: tuple[str, ...]
    decision: Decision
    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    parameters: Mapping[str, frozenset[str]] | None = None


@dataclass(frozen=True)
class StepPrediction:
    """What a system did at a step; calls and answer count only under the decision they belong to."""

    decision: Decision
    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    rationale: str = ""


@dataclass(frozen=True)
class StaticScores:
    """Static metrics as fractions in [0, 1]; None where no step is scored.

    Attributes:
        plan_acc: Plan ACC.
        act_em: Act. EM.
        hallu: Hallu., lower is better.
        arg_f1: Arg. F1.
        rouge_l: ROUGE-L.
        easy_f1: Arg. F1 over references without arguments.
        hard_f1: Arg. F1 over references with arguments.
        n: How many steps each metric scores.
        ci95: 95 % bootstrap interval over trajectories, for each metric with a scored step.
    """

    plan_acc: float | None
    act_em: float | None
    hallu: float | None
    arg_f1: float | None
    rouge_l: float | None
    easy_f1: float | None = None
    hard_f1: float | None = None
    n: Mapping[str, int] = field(default_factory=dict)
    ci95: Mapping[str, Interval] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The ``paper`` object of ``umi eval static --json``."""
        values: dict[str, Any] = {metric: getattr(self, metric) for metric in METRICS}
        return values | {"n": dict(self.n), "ci95": {name: list(interval) for name, interval in self.ci95.items()}}


def paper_scores(
    pairs: Sequence[tuple[StepReference, StepPrediction]], groups: Sequence[str] | None = None, seed: int = 0
) -> StaticScores:
    """Scores steps by the reference's rules (see the module's docstring).

    Args:
        pairs: Reference and prediction of each scored step.
        groups: The trajectory of each step, for the intervals; None takes the steps as independent, which gives
            intervals that are too narrow.
        seed: Of the bootstrap.
    """
    if groups is not None and len(groups) != len(pairs):
        raise ValueError(f"{len(pairs)} steps but {len(groups)} groups; give one group a step")
    steps = [step_scores(reference, prediction) for reference, prediction in pairs]
    values = {metric: [step[metric] for step in steps] for metric in METRICS}
    n = {metric: sum(value is not None for value in column) for metric, column in values.items()}
    scored: list[Metric] = [metric for metric in METRICS if n[metric]]
    ci95: dict[str, Interval] = {}
    if scored:
        table = np.array([values[metric] for metric in scored], dtype=np.float64).T  # (steps, M), None becomes NaN
        ci95 = dict(zip(scored, bootstrap_means(table, groups, seed=seed), strict=True))
    return StaticScores(**{metric: _mean(values[metric]) for metric in METRICS}, n=n, ci95=ci95)


def step_scores(reference: StepReference, prediction: StepPrediction) -> dict[Metric, float | None]:
    """One step's value of each metric; None where the metric does not score the step."""
    wanted = _calls(reference.decision, reference.calls)
    made = _calls(prediction.decision, prediction.calls)
    known = {*reference.tool_names, NO_CALL.name}
    scores: dict[Metric, float | None] = dict.fromkeys(METRICS)
    scores["plan_acc"] = float(prediction.decision is reference.decision)
    scores["hallu"] = float(any(name not in known for name, _ in made))
    if reference.decision is Decision.CALL:
        scores["act_em"] = float(Counter(name for name, _ in wanted) == Counter(name for name, _ in made))
        parts = list(_argument_scores(wanted, made))
        scores["arg_f1"] = _mean([score for _, score in parts])
        scores["easy_f1"] = _mean([score for part, score in parts if part != "hard"])
        scores["hard_f1"] = _mean([score for part, score in parts if part != "easy"])
    elif reference.decision is Decision.FINISH:
        answered = prediction.decision is Decision.FINISH and prediction.answer is not None
        scores["rouge_l"] = rouge_l((prediction.answer or "") if answered else NO_ANSWER, reference.answer or "")
    return scores


def rouge_l(hypothesis: str, reference: str) -> float:
    """ROUGE-L F of ``rouge`` 1.0.1, in [0, 1]; 0 where either text has no sentence.

    Time and memory grow with the product of the two lengths in words, sentence by sentence.
    """
    from rouge import Rouge

    if not hypothesis.replace(".", "") or not reference.replace(".", ""):
        return 0.0
    # The package walks back through its table by recursion, one frame a word.
    with _recursion_limit(len(hypothesis.split()) + len(reference.split()) + 1000):
        scores: Any = Rouge(metrics=["rouge-l"], stats=["f"]).get_scores(hypothesis, reference)
    return float(scores[0]["rouge-l"]["f"])


_Written = tuple[str, str | None]


def _calls(decision: Decision, calls: Sequence[ToolCall]) -> list[_Written]:
    """Name and arguments of each call; arguments are None where what was written is no call at all."""
    if decision is not Decision.CALL or not calls:
        calls = (NO_CALL,)
    return [
        (call.name or NO_CALL.name if call.malformed else call.name, None if call.malformed else call.arguments)
        for call in calls
    ]


def _argument_scores(wanted: Sequence[_Written], made: Sequence[_Written]) -> Iterator[tuple[_Part, float]]:
    """Yields a score a pair of calls, and the part of Arg. F1 that it belongs to."""
    waiting: defaultdict[str, list[str | None]] = defaultdict(list)
    for name, arguments in made:
        waiting[name].append(arguments)
    missed = 0
    for name, arguments in wanted:
        if not waiting[name]:
            missed += 1
            continue
        predicted = waiting[name].pop(0)
        with contextlib.suppress(ValueError, RecursionError):
            expected = json.loads(arguments or "")
            yield ("easy" if expected == {} else "hard"), _argument_f1(expected, predicted)
    for _ in range(max(missed, sum(map(len, waiting.values())))):
        yield "both", 0.0


def _argument_f1(expected: Any, predicted: str | None) -> float:
    """F1 of the keys, a right key with another value counting a half; never raises."""
    try:
        given = json.loads(predicted or "")
        if not isinstance(expected, dict) or not isinstance(given, dict):
            return 0.0
        if not expected:
            return float(not given)
        credit = sum(1.0 if given[key] == value else 0.5 for key, value in expected.items() if key in given)
    except (ValueError, RecursionError):
        return 0.0
    # 2PR / (P + R) with P = credit / given and R = credit / expected.
    return 2.0 * credit / (len(given) + len(expected))


def _mean(values: Sequence[float | None]) -> float | None:
    scored = [value for value in values if value is not None]
    return math.fsum(scored) / len(scored) if scored else None


@contextlib.contextmanager
def _recursion_limit(frames: int) -> Iterator[None]:
    """Raises the interpreter's recursion limit inside the block; pure Python frames take no C stack (3.11 on)."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, frames + before))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
