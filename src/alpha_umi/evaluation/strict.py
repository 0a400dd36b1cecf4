"""The static metrics in ``strict`` mode: the paper's figures without the oddities of its script.

``docs/metrics.md`` sets every difference from :mod:`alpha_umi.evaluation.metrics` beside an example. The rules:

* What a metric scores depends on the references only, so two systems on the same data have the same ``n``.
* *Act. EM*: over all steps, the decision is right and so are the calls, names and arguments, as a multiset. A step
  whose reference finishes or gives up is right if the system does the same.
* *Arg. F1*: over all steps whose reference is a call, F1 of the (parameter, value) pairs; a right parameter with
  another value is wrong. Calls of one name are paired best first; a call without a partner, on the longer side, is 0.
* Arguments are compared as JSON values: ``1 == 1.0``, ``true != 1``, the order of keys is irrelevant, strings are
  exact; of a doubled key the last one counts. What is not JSON (``NaN`` is not) equals the same text only.
* *Hallu.*: as in paper mode. *Hallu. args* counts parameter names that the called tool does not declare.
* *ROUGE-L*: F of ``rouge-score`` over the whole answer, by :func:`words`; a step that predicts no answer is 0.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from alpha_umi import validation
from alpha_umi.evaluation.metrics import NO_CALL, StepPrediction, StepReference
from alpha_umi.evaluation.statistics import Interval, bootstrap_means
from alpha_umi.trajectory import Decision, Tool, ToolCall

StrictMetric = Literal[
    "plan_acc", "act_em", "hallu", "arg_f1", "rouge_l", "easy_f1", "hard_f1", "hallu_args",
    "act_em_call", "no_call", "plan_acc_call", "plan_acc_finish", "plan_acc_give_up",
]  # fmt: skip
STRICT_METRICS: tuple[StrictMetric, ...] = (
    "plan_acc", "act_em", "hallu", "arg_f1", "rouge_l", "easy_f1", "hard_f1", "hallu_args",
    "act_em_call", "no_call", "plan_acc_call", "plan_acc_finish", "plan_acc_give_up",
)  # fmt: skip

_DECISIONS: Mapping[Decision, StrictMetric] = {
    Decision.CALL: "plan_acc_call",
    Decision.FINISH: "plan_acc_finish",
    Decision.GIVE_UP: "plan_acc_give_up",
}
# Scripts written without spaces between words: Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Javanese, Balinese, kana,
# bopomofo, Han. Korean has spaces.
_UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u3005-\u3007\u3040-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua980-\ua9ff\uaa60-\uaadf\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Over the kinds of characters: w of a spaced script, u of an unspaced one, m a combining mark.
_WORD = re.compile("w[wm]*|um*")


@dataclass(frozen=True)
class StrictScores:
    """Strict static metrics as fractions in [0, 1]; None where no step is scored.

    Attributes:
        plan_acc: Share of steps whose decision is right.
        act_em: Share of steps whose action is right: the decision, and of a call every name and all arguments.
        hallu: Share of steps that call a name that is not in the tool list, lower is better.
        arg_f1: F1 of the arguments, over the steps whose reference calls.
        rouge_l: ROUGE-L, over the steps whose reference finishes.
        easy_f1: ``arg_f1`` over the steps whose reference calls all have the arguments ``{}``.
        hard_f1: ``arg_f1`` over the other ones.
        hallu_args: Share of steps that give a tool a parameter it does not declare, lower is better; over the steps
            whose tools' parameters are known.
        act_em_call: ``act_em`` over the steps whose reference calls: the paper's denominator.
        no_call: Share of the steps whose reference finishes or gives up at which the system does not call either.
        plan_acc_call: ``plan_acc`` over the steps whose reference calls.
        plan_acc_finish: The same, where it finishes.
        plan_acc_give_up: The same, where it gives up.
        n: How many steps each metric scores.
        ci95: 95 % bootstrap interval over trajectories, for each metric with a scored step.
        confusion: Steps by the reference's decision, then by the predicted one.
    """

    plan_acc: float | None = None
    act_em: float | None = None
    hallu: float | None = None
    arg_f1: float | None = None
    rouge_l: float | None = None
    easy_f1: float | None = None
    hard_f1: float | None = None
    hallu_args: float | None = None
    act_em_call: float | None = None
    no_call: float | None = None
    plan_acc_call: float | None = None
    plan_acc_finish: float | None = None
    plan_acc_give_up: float | None = None
    n: Mapping[str, int] = field(default_factory=dict)
    ci95: Mapping[str, Interval] = field(default_factory=dict)
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The ``strict`` object of ``umi eval static --json``."""
        values: dict[str, Any] = {metric: getattr(self, metric) for metric in STRICT_METRICS}
        return values | {
            "n": dict(self.n),
            "ci95": {name: list(interval) for name, interval in self.ci95.items()},
            "confusion": {wanted: dict(row) for wanted, row in self.confusion.items()},
        }


def strict_scores(
    pairs: Sequence[tuple[StepReference, StepPrediction]], groups: Sequence[str] | None = None, seed: int = 0
) -> StrictScores:
    """Scores steps by the rules of the module's docstring.

    Args:
        pairs: Reference and prediction of each scored step.
        groups: The trajectory of each step, for the intervals; None takes the steps as independent, which gives
            intervals that are too narrow.
        seed: Of the bootstrap.

    Raises:
        ValueError: ``groups`` has another length than ``pairs``.
    """
    if groups is not None and len(groups) != len(pairs):
        raise ValueError(f"{len(pairs)} steps but {len(groups)} groups; give one group a step")
    steps = [strict_step_scores(reference, prediction) for reference, prediction in pairs]
    rows = [[step[metric] for metric in STRICT_METRICS] for step in steps]
    table = np.array(rows, dtype=np.float64).reshape(-1, len(STRICT_METRICS))  # (steps, M), None becomes NaN
    counts = (~np.isnan(table)).sum(axis=0)
    scored = np.flatnonzero(counts)
    ci95: dict[str, Interval] = {}
    means: dict[str, float] = {}
    if len(scored):
        names = [STRICT_METRICS[column] for column in scored]
        ci95 = dict(zip(names, bootstrap_means(table[:, scored], groups, seed=seed), strict=True))
        means = dict(zip(names, np.nanmean(table[:, scored], axis=0).tolist(), strict=True))
    n: dict[str, int] = dict(zip(STRICT_METRICS, counts.tolist(), strict=True))
    return StrictScores(**means, n=n, ci95=ci95, confusion=_confusion(pairs))


def strict_step_scores(reference: StepReference, prediction: StepPrediction) -> dict[StrictMetric, float | None]:
    """One step's value of each metric; None where the metric does not score the step."""
    decided = prediction.decision is reference.decision
    made = prediction.calls if prediction.decision is Decision.CALL else ()
    scores: dict[StrictMetric, float | None] = dict.fromkeys(STRICT_METRICS)
    scores["plan_acc"] = scores["act_em"] = scores[_DECISIONS[reference.decision]] = float(decided)
    scores["hallu"] = float(any(_is_invented(call, reference.tool_names) for call in made))
    read = [_read(call) for call in made]
    if reference.parameters is not None:
        scores["hallu_args"] = float(any(_has_invented_parameter(call, reference.parameters) for call in read))
    if reference.decision is Decision.CALL:
        wanted = [_read(call) for call in reference.calls]
        score = _argument_f1(wanted, read) if decided else 0.0
        scores["act_em"] = scores["act_em_call"] = float(decided and _multiset(wanted) == _multiset(read))
        scores["arg_f1"] = score
        scores["easy_f1" if all(call.parameters == {} for call in wanted) else "hard_f1"] = score
        return scores
    scores["no_call"] = float(prediction.decision is not Decision.CALL)
    if reference.decision is Decision.FINISH:
        scores["rouge_l"] = answer_rouge_l(prediction.answer or "", reference.answer or "") if decided else 0.0
    return scores


def declared_parameters(tools: Sequence[Tool]) -> dict[str, frozenset[str]]:
    """The parameter names that each tool declares, for :attr:`StepReference.parameters`.

    A tool whose schema isn't closed (see :func:`alpha_umi.validation.declared_parameters`) is left out. Of two tools
    with one name the first counts.
    """
    first = {tool.name: tool for tool in reversed(tools)}
    declared = {name: validation.declared_parameters(tool) for name, tool in first.items()}
    return {name: frozenset(names) for name, names in declared.items() if names is not None}


def answer_rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L F of ``rouge-score`` over the :func:`words` of two answers, in [0, 1].

    Equal answers are 1, whatever they hold; otherwise an answer without a word is 0. Time and memory grow with the
    product of the two numbers of words.
    """
    if prediction == reference:
        return 1.0
    from rouge_score.rouge_scorer import RougeScorer

    scores: Any = RougeScorer(["rougeL"], tokenizer=_Words()).score(reference, prediction)
    return float(scores["rougeL"].fmeasure)


def words(text: str) -> list[str]:
    """The words of a text, without case; each letter with its marks is a word in scripts that have no spaces.

    Compatibility forms are unified (NFKC). On ASCII text this is the default tokenizer of ``rouge-score``, which finds
    no word at all in Chinese, Russian or Hindi.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return [text[found.start() : found.end()] for found in _WORD.finditer("".join(map(_kind, text)))]


class _Words:
    """A tokenizer as ``rouge-score`` wants it."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _kind(character: str) -> str:
    if unicodedata.category(character).startswith("M"):
        return "m"
    if not character.isalnum():
        return " "
    return "u" if _UNSPACED.match(character) else "w"


@dataclass(frozen=True)
class _Call:
    """A call as it is compared.

    Attributes:
        name: The tool's name.
        value: Canonical text of JSON arguments, or what was written with a word before it that no JSON begins with.
        parameters: Canonical text of each argument, or None if the arguments are no JSON object.
    """

    name: str
    value: str
    parameters: Mapping[str, str] | None = None


def _read(call: ToolCall) -> _Call:
    """Reads a call for comparison; never raises. JSON that is nested hundreds deep stays text."""
    if call.malformed:
        return _Call(call.name, f"malformed {call.arguments}")
    try:
        # Decimal holds any number exactly; it refuses exponents of 19 digits with an ArithmeticError
        value = json.loads(call.arguments, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse)
        parameters = {name: _canonical(item) for name, item in value.items()} if isinstance(value, dict) else None
        return _Call(call.name, _canonical(value), parameters)
    except (ValueError, ArithmeticError, RecursionError):
        return _Call(call.name, f"text {call.arguments}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _canonical(value: Any) -> str:
    """One text for equal JSON values, numbers being Decimal; RecursionError where it is nested too deeply."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_canonical(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return _number(value) if isinstance(value, Decimal) else json.dumps(value)


def _number(value: Decimal) -> str:
    sign, digits, exponent = value.as_tuple()
    written = "".join(map(str, digits))
    significant = written.rstrip("0")
    if not significant:
        return "0"
    return f"{'-' * sign}{significant}e{int(exponent) + len(written) - len(significant)}"


def _multiset(calls: Sequence[_Call]) -> Counter[tuple[str, str]]:
    return Counter((call.name, call.value) for call in calls)


def _is_invented(call: ToolCall, names: Sequence[str]) -> bool:
    """Whether a name was written that is not in the list; ``none`` says that there is no call, as in paper mode."""
    unnamed = call.name == NO_CALL.name or (call.malformed and not call.name)
    return not unnamed and call.name not in names


def _has_invented_parameter(call: _Call, declared: Mapping[str, frozenset[str]]) -> bool:
    known = declared.get(call.name)
    return known is not None and call.parameters is not None and not known.issuperset(call.parameters)


def _argument_f1(wanted: Sequence[_Call], made: Sequence[_Call]) -> float:
    """The mean over the paired calls, best first, and a 0 for each call that found no partner on the longer side."""
    if _multiset(wanted) == _multiset(made):
        return 1.0
    # equal scores are ordered by what was written, so that the order of the calls makes no difference
    pairs = sorted(
        (-score, one.name, one.value, other.value, row, column)
        for row, one in enumerate(wanted)
        for column, other in enumerate(made)
        if (score := _pair_f1(one, other))
    )
    rows, columns, total = set[int](), set[int](), 0.0
    for negative, _, _, _, row, column in pairs:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            total -= negative
    return total / max(len(wanted), len(made))


def _pair_f1(wanted: _Call, made: _Call) -> float:
    if wanted.name != made.name:
        return 0.0
    if wanted.value == made.value:
        return 1.0
    if not wanted.parameters or not made.parameters:
        return 0.0
    right = len(wanted.parameters.items() & made.parameters.items())
    return 2.0 * right / (len(wanted.parameters) + len(made.parameters))


def _confusion(pairs: Sequence[tuple[StepReference, StepPrediction]]) -> dict[str, dict[str, int]]:
    seen = Counter((reference.decision, prediction.decision) for reference, prediction in pairs)
    return {
        wanted.name.lower(): {predicted.name.lower(): seen[wanted, predicted] for predicted in Decision}
        for wanted in Decision
    }
