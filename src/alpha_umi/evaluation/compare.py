"""Two evaluations of the same instructions set side by side: ``umi eval compare A B``.

What is compared are the folders that ``umi eval static --traces``, ``umi eval live --traces`` and the quickstart leave:
``static-SPLIT-steps.jsonl`` and ``live-SPLIT-episodes.jsonl``. Steps and episodes are paired by name; what only one of
the two has is counted and left out. A difference is B's figure less A's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpha_umi.errors import DataError, UserError
from alpha_umi.evaluation.kept_steps import read_steps
from alpha_umi.evaluation.paired import Difference, paired_difference
from alpha_umi.trajectory import OURS, Trajectory, UserMessage, read_jsonl

ALL = "all"
"""The splits taken together."""

STATIC = ("plan_acc", "act_em", "hallu", "arg_f1", "rouge_l")
LIVE = ("pass_rate", "calls", "generated_tokens")
METRICS = (*STATIC, *(f"strict.{metric}" for metric in (*STATIC, "hallu_args")), *LIVE)
_STEPS, _EPISODES = "static-*-steps.jsonl", "live-*-episodes.jsonl"


@dataclass(frozen=True)
class Unit:
    """What both systems did the same: a step of a gold trajectory, or an episode.

    Attributes:
        split: Where it belongs.
        group: What is resampled: the trajectory or instruction.
        kind: Of a step the decision that is right, of an episode the kind of instruction.
        tools: Names of the tools that the step should call.
        scores: Value of each metric; None where it isn't scored.
        instruction: What the user asked, of an episode.
    """

    split: str
    group: str
    kind: str
    tools: tuple[str, ...]
    scores: Mapping[str, float | None]
    instruction: str = ""


Units = dict[tuple[str, str, int], Unit]
"""By split, name and step (-1: an episode)."""


@dataclass(frozen=True)
class Comparison:
    """Differences of B against A.

    Attributes:
        splits: By split (and ``all``), then by metric.
        kinds: By what is right at a step (``call``, ``finish``, ``give_up``) or the kind of instruction, by metric.
        tools: By tool, Act. EM of the steps that should call it.
        broken: Instructions that A solves and B doesn't.
        repaired: The other way round.
        unpaired: Steps and episodes that only one of the two has.
    """

    splits: Mapping[str, Mapping[str, Difference]]
    kinds: Mapping[str, Mapping[str, Difference]]
    tools: Mapping[str, Difference]
    broken: Sequence[Unit] = field(default=())
    repaired: Sequence[Unit] = field(default=())
    unpaired: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain data: the same keys, every difference an object, every instruction its split, kind and text."""
        return {
            "splits": {split: _plain(found) for split, found in self.splits.items()},
            "kinds": {kind: _plain(found) for kind, found in self.kinds.items()},
            "tools": _plain(self.tools),
            "broken": [_named(unit) for unit in self.broken],
            "repaired": [_named(unit) for unit in self.repaired],
            "unpaired": self.unpaired,
        }


def compare(a: Path, b: Path, seed: int = 0) -> Comparison:
    """Compares two evaluation folders.

    Raises:
        UserError: A folder holds no evaluation, or the two have no instruction in common.
        DataError: A file in it is damaged.
    """
    first, second = read_units(a), read_units(b)
    common = [key for key in first if key in second]
    if not common:
        raise UserError(f"{a} and {b} have no step and no episode in common: evaluate both on the same data")
    pairs = [(first[key], second[key]) for key in common]
    episodes = [(x, y) for x, y in pairs if x.scores.get("pass_rate") is not None]
    return Comparison(
        splits={split: _differences(found, METRICS, seed) for split, found in _by_split(pairs)},
        kinds={kind: _differences(found, ("plan_acc", "act_em", "pass_rate"), seed) for kind, found in _by_kind(pairs)},
        tools=_by_tool(pairs, seed),
        broken=[x for x, y in episodes if _solved(x) and not _solved(y)],
        repaired=[x for x, y in episodes if _solved(y) and not _solved(x)],
        unpaired=len(first) + len(second) - 2 * len(common),
    )


def read_units(folder: Path) -> Units:
    """Every step and episode that an evaluation left in a folder.

    Raises:
        UserError: There are none.
        DataError: A file is damaged.
    """
    units: Units = {}
    for path in sorted(folder.glob(_STEPS)):
        units |= _steps(path, path.name.removeprefix("static-").removesuffix("-steps.jsonl"))
    for path in sorted(folder.glob(_EPISODES)):
        units |= _episodes(path, path.name.removeprefix("live-").removesuffix("-episodes.jsonl"))
    if not units:
        inner = sorted(path.parent.name for path in folder.glob(f"*/{_EPISODES}"))
        hint = f"; did you mean {folder / inner[0]}?" if inner else ""
        raise UserError(
            f"{folder} holds no evaluation ({_STEPS}, {_EPISODES}): make one with umi eval static or live and "
            f"--traces{hint}"
        )
    return units


def _steps(path: Path, split: str) -> Units:
    found: Units = {}
    for step in read_steps(path):
        strict = {f"strict.{metric}": value for metric, value in step.strict.items()}
        scores = {**step.paper, **strict}
        found[split, step.trajectory, step.step] = Unit(split, step.trajectory, step.decision, step.tools, scores)
    return found


def _episodes(path: Path, split: str) -> Units:
    return {(split, one.id or "", -1): _episode(path, split, one) for one in read_jsonl(path)}


def _episode(path: Path, split: str, episode: Trajectory) -> Unit:
    told: Any = episode.extra.get(OURS)
    try:
        scores: dict[str, float | None] = {
            "pass_rate": float(told["verdict"]["solved"]), "calls": float(told["calls"]),
            "generated_tokens": float(told["generated_tokens"]),
        }  # fmt: skip
        kind = str(told["kind"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"episode {episode.id} has no verdict of this version: evaluate again") from error
    asked = next((message.content for message in episode.messages if isinstance(message, UserMessage)), "")
    return Unit(split, episode.id or "", kind, (), scores, asked)


Pair = tuple[Unit, Unit]


def _differences(pairs: Sequence[Pair], metrics: Sequence[str], seed: int) -> dict[str, Difference]:
    found = {}
    for metric in metrics:
        one = paired_difference(
            [x.scores.get(metric) for x, _ in pairs], [y.scores.get(metric) for _, y in pairs],
            [(x.split, x.group) for x, _ in pairs], seed=seed,
        )  # fmt: skip
        if one is not None:
            found[metric] = one
    return found


def _by_split(pairs: Sequence[Pair]) -> Iterator[tuple[str, Sequence[Pair]]]:
    splits = _grouped(pairs, lambda unit: (unit.split,))
    yield from splits.items()
    if len(splits) > 1:
        yield ALL, pairs


def _by_kind(pairs: Sequence[Pair]) -> Iterator[tuple[str, Sequence[Pair]]]:
    yield from _grouped(pairs, lambda unit: (unit.kind,)).items()


def _by_tool(pairs: Sequence[Pair], seed: int) -> dict[str, Difference]:
    found = {}
    for tool, some in _grouped(pairs, lambda unit: tuple(dict.fromkeys(unit.tools))).items():
        difference = _differences(some, ("act_em",), seed).get("act_em")
        if difference is not None:
            found[tool] = difference
    return dict(sorted(found.items(), key=lambda item: item[1].difference))


def _grouped(pairs: Sequence[Pair], names: Callable[[Unit], tuple[str, ...]]) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        for name in names(pair[0]):
            found.setdefault(name, []).append(pair)
    return found


def _solved(unit: Unit) -> bool:
    return unit.scores.get("pass_rate") == 1.0


def _plain(found: Mapping[str, Difference]) -> dict[str, Any]:
    return {name: difference.to_json() for name, difference in found.items()}


def _named(unit: Unit) -> dict[str, str]:
    return {"id": unit.group, "split": unit.split, "kind": unit.kind, "instruction": unit.instruction}
