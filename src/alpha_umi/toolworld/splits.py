"""The training data and the six test splits, each an endless sequence of tasks made on demand.

Task *i* of a split depends on the split, the seed and *i* only. Instructions are kept apart by their contents: what is
asked (the APIs' names and every value given) is hashed, and one share of the hashes belongs to the tests alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from alpha_umi.toolworld.catalogue import Partition
from alpha_umi.toolworld.drafts import Draft
from alpha_umi.toolworld.grammar import instruction
from alpha_umi.toolworld.operations import rates_table
from alpha_umi.toolworld.oracle import solve
from alpha_umi.toolworld.plans import KIND_SHARES, Plan, make_plan
from alpha_umi.toolworld.tasks import Shape, Task
from alpha_umi.toolworld.values import Vocabulary
from alpha_umi.trajectory import AssistantMessage, Trajectory

SPLITS = ("I1-Inst", "I1-Tool", "I1-Cat", "I2-Inst", "I2-Cat", "I3-Inst")
_TRAIN_SHAPES: tuple[tuple[Shape, float], ...] = (("I1", 0.6), ("I2", 0.2), ("I3", 0.2))
_TEST_SHARE = 4
_EASY_TOOLS = 2
_CALL_FRAME = len('{"name": "", "arguments": }')
MAX_CALLS = 4
MAX_RATIONALE_WORDS = 80
MAX_ANSWER_WORDS = 30
MAX_CHARACTERS = 3000


@dataclass(frozen=True)
class SplitSource:
    """Where a split's tasks come from."""

    partition: Partition
    vocabulary: Vocabulary
    shapes: tuple[tuple[Shape, float], ...]


def source_of(split: str) -> SplitSource:
    """Where a split's tasks come from.

    Raises:
        ValueError: There is no such split.
    """
    if split == "train":
        return SplitSource("train", "train", _TRAIN_SHAPES)
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are train, {', '.join(SPLITS)}")
    shape: Shape = "I1" if split.startswith("I1") else "I2" if split.startswith("I2") else "I3"
    if split.endswith("Tool"):
        return SplitSource("tool", "held-out", ((shape, 1.0),))
    if split.endswith("Cat"):
        return SplitSource("cat", "held-out", ((shape, 1.0),))
    return SplitSource("train", "train", ((shape, 1.0),))


def make_tasks(split: str, count: int, seed: int = 0, easy: float = 0.0) -> Iterator[Task]:
    """Makes tasks one by one.

    Args:
        split: ``train`` or one of ``SPLITS``.
        count: How many; task *i* is the same whatever the count.
        seed: Another seed gives other tasks.
        easy: Share of short episodes (two tools, one call, nothing goes wrong), for a curriculum.

    Raises:
        ValueError: There is no such split.
    """
    source = source_of(split)
    return (_task(split, source, seed, index, easy) for index in range(count))


def make_task(split: str, index: int, seed: int = 0, easy: float = 0.0) -> Task:
    """Makes task number ``index`` of ``make_tasks`` alone.

    Raises:
        ValueError: There is no such split.
    """
    return _task(split, source_of(split), seed, index, easy)


def split_trajectories(split: str, count: int, seed: int = 0, easy: float = 0.0) -> Iterator[Trajectory]:
    """The oracle's trajectories of ``make_tasks``."""
    return map(solve, make_tasks(split, count, seed, easy))


def _task(split: str, source: SplitSource, seed: int, index: int, easy: float) -> Task:
    name = f"{split}-{seed}-{index}"
    first = Random(f"toolworld {name}")
    is_easy = first.random() < easy
    shape: Shape = "I1" if is_easy else first.choices(*zip(*source.shapes, strict=True))[0]
    kinds = KIND_SHARES[shape]
    kind = "single" if is_easy else first.choices(list(kinds), list(kinds.values()))[0]
    attempt = 0
    while True:
        rng = Random(f"toolworld {name} {attempt}")
        draft = Draft(rng, source.vocabulary)
        plan = make_plan(rng, draft, source.partition, shape, kind)
        if plan is not None:
            task = finish_task(name, split, shape, plan, draft, is_easy)
            if task is not None:
                return task
        attempt += 1


def finish_task(name: str, split: str, shape: Shape, plan: Plan, draft: Draft, easy: bool = False) -> Task | None:
    """The task that was planned and drafted; None if its contents belong to other splits, or it is too long."""
    task = _finished(name, split, shape, plan, draft, easy)
    apart = source_of(split).partition != "train" or _is_test(draft, plan, task.instruction) == (split != "train")
    return task if apart and is_within_limits(solve(task)) else None


def _finished(name: str, split: str, shape: Shape, plan: Plan, draft: Draft, easy: bool) -> Task:
    shown = plan.shown
    if easy:
        others = [api for api in shown if api not in plan.apis and api.mirror_of is None]
        keep = {*plan.apis, *others[: _EASY_TOOLS - 1]}
        shown = tuple(api for api in shown if api in keep)
    for api in shown:
        draft.rows(api.table)
    tables = {api.table for api in shown}
    tables |= {rates_table(table) for table in tables}
    return Task(
        id=name,
        split=split,
        kind=plan.kind,
        shape=shape,
        instruction=instruction(draft.rng, plan.apis, draft.requests, plan.at_once),
        tools=tuple(api.tool for api in shown),
        seed=name,
        tables={table: rows for table, rows in draft.tables.items() if table in tables},
        steps=tuple(draft.steps),
        requests=tuple(draft.requests),
        faults=plan.faults,
        missing=draft.missing,
    )


def _is_test(draft: Draft, plan: Plan, text: str) -> bool:
    """Whether these contents belong to the tests; the wording counts only where no value is given."""
    contents: Sequence[str] = [*sorted(api.name for api in plan.apis), *sorted(draft.values)]
    if not draft.values:
        contents = [text]
    return blake2b("|".join(contents).encode(), digest_size=1).digest()[0] % _TEST_SHARE == 0


def is_within_limits(trajectory: Trajectory) -> bool:
    """Whether a trajectory is as short as nano models need it: calls, words of each text, characters in all."""
    turns = [message for message in trajectory.messages if isinstance(message, AssistantMessage)]
    answers = [turn.content or turn.refusal or "" for turn in turns]
    return (
        sum(len(turn.tool_calls) for turn in turns) <= MAX_CALLS
        and max(len((turn.reasoning_content or "").split()) for turn in turns) <= MAX_RATIONALE_WORDS
        and max(len(answer.split()) for answer in answers) <= MAX_ANSWER_WORDS
        and count_characters(trajectory) <= MAX_CHARACTERS
    )


def count_characters(trajectory: Trajectory) -> int:
    """Characters of everything a transcript shows: schemas, texts and calls, without headers."""
    total = sum(len(tool.schema) for tool in trajectory.tools)
    for message in trajectory.messages:
        total += len(message.content or "")
        if isinstance(message, AssistantMessage):
            total += len(message.reasoning_content or "") + len(message.refusal or "")
            total += sum(len(call.name) + len(call.arguments) + _CALL_FRAME for call in message.tool_calls)
    return total
