"""Conversations: several instructions one after another, over the same tools and in one world.

More than half of a short transcript are the schemas. A conversation shows them once and asks several things of them, so
a model learns more from every token it reads; it's also what people do. The first instruction is a task of the split;
those that follow are drawn for the tools that are there. Each goes on from the state that the one before it left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random

from alpha_umi.toolworld.catalogue import Api, load_catalogue
from alpha_umi.toolworld.drafts import Draft, Link
from alpha_umi.toolworld.operations import STATUS
from alpha_umi.toolworld.oracle import solution
from alpha_umi.toolworld.plans import Plan, links, originals, overlap
from alpha_umi.toolworld.splits import count_characters, finish_task, make_task, source_of
from alpha_umi.toolworld.tasks import TRANSIENT, Fault, Kind, Tables, Task
from alpha_umi.toolworld.world import copied
from alpha_umi.trajectory import AssistantMessage, Message, ToolMessage, Trajectory

_KIND_SHARES: Mapping[Kind, float] = {
    "single": 20, "multi": 18, "parallel": 16, "chain": 14, "missing": 13, "impossible": 8, "empty": 6, "retry": 5,
}  # fmt: skip
_KINDS_TRIED, _TRIES = 3, 8


def make_conversations(
    split: str, count: int, seed: int = 0, easy: float = 0.0, tasks: int = 1, characters: int = 2700
) -> Iterator[Trajectory]:
    """The oracle's trajectories of conversations.

    Args:
        split: ``train`` or a test split.
        count: How many; conversation *i* is the same whatever the count.
        seed: Another seed gives other ones.
        easy: Share of conversations that open with a short episode (two tools, one call, nothing goes wrong).
        tasks: Instructions of each, at most; 1 gives `split_trajectories`.
        characters: Of schemas and texts together, at most (a single instruction may have `splits.MAX_CHARACTERS`).

    Raises:
        ValueError: There is no such split.
    """
    for index in range(count):
        yield _conversation(make_task(split, index, seed, easy), tasks, characters)


def _conversation(first: Task, tasks: int, characters: int) -> Trajectory:
    solved = solution(first)
    whole, state = solved.trajectory, _tables(solved.state)
    rng = Random(f"conversation {first.id}")
    for number in range(1, tasks):
        following = _following(rng, first, state, f"{first.id}+{number}")
        if following is None:
            break
        solved = solution(following)
        joined = _joined(whole, solved.trajectory)
        if count_characters(joined) > characters:
            break
        whole, state = joined, state | _tables(solved.state)
    return whole


def _tables(state: Mapping[str, list[str]]) -> Tables:
    return {name: [json.loads(row) for row in rows] for name, rows in state.items()}


def _joined(before: Trajectory, after: Trajectory) -> Trajectory:
    """The conversation with another one's messages behind its own; calls are numbered on."""
    made = sum(len(m.tool_calls) for m in before.messages if isinstance(m, AssistantMessage))
    return replace(before, messages=(*before.messages, *(_numbered(m, made) for m in after.messages)))


def _numbered(message: Message, first: int) -> Message:
    def name(call_id: str) -> str:
        return f"call_{int(call_id.removeprefix('call_')) + first}"

    if isinstance(message, ToolMessage):
        return replace(message, tool_call_id=name(message.tool_call_id))
    if isinstance(message, AssistantMessage) and message.tool_calls:
        return replace(message, tool_calls=tuple(replace(call, id=name(call.id)) for call in message.tool_calls))
    return message


def _following(rng: Random, first: Task, state: Tables, name: str) -> Task | None:
    """Another task over the first one's tools; None if a few tries came to nothing.

    What was said before stays true: rows that are there already are not changed to suit it.
    """
    apis = load_catalogue().apis
    shown = tuple(apis[tool.name] for tool in first.tools)
    source = source_of(first.split)
    untouched = {table: [row for row in rows if STATUS not in row] for table, rows in state.items()}
    for kind in rng.choices(list(_KIND_SHARES), list(_KIND_SHARES.values()), k=_KINDS_TRIED):
        for _ in range(_TRIES):
            draft = Draft(rng, source.vocabulary, copied(untouched), unambiguous=True)
            task = _drafted(rng, draft, first, shown, kind, name)
            if task is not None and all(draft.tables[table] == rows for table, rows in untouched.items()):
                return replace(task, tables={table: state.get(table, rows) for table, rows in task.tables.items()})
    return None


def _drafted(rng: Random, draft: Draft, first: Task, shown: tuple[Api, ...], kind: Kind, name: str) -> Task | None:
    """A task of this kind over the tools that are shown; None if this try came to nothing."""
    partition = source_of(first.split).partition
    if kind == "chain":
        called = _chain(rng, draft, shown, links(partition, first.shape))
    else:
        called = _calls(rng, draft, shown, kind, originals(partition))
    if called is None:
        return None
    faults = (Fault(rng.choice(called).name, rng.choice(TRANSIENT), 1),) if kind == "retry" else ()
    return finish_task(name, first.split, first.shape, Plan(kind, called, shown, faults, kind == "parallel"), draft)


def _chain(
    rng: Random, draft: Draft, shown: Sequence[Api], known: Sequence[tuple[Api, Sequence[Link]]]
) -> tuple[Api, ...] | None:
    """Two APIs, the second of which needs what the first gives."""
    usable = [link for api, found in known if api in shown for link in found if link.target in shown]
    if not usable:
        return None
    link = rng.choice(usable)
    if not draft.add(link.source) or not draft.add(link.target, link=link, turn=1):
        return None
    return link.source, link.target


def _calls(
    rng: Random, draft: Draft, shown: Sequence[Api], kind: Kind, others: Sequence[Api]
) -> tuple[Api, ...] | None:
    """The APIs to call, drafted; of what is impossible, one that isn't shown and that nothing shown stands in for."""
    usable = [api for api in shown if api.mirror_of is None]
    if kind == "impossible":
        nouns = {api.verb_noun for api in shown}
        usable = [api for api in others if api.verb_noun not in nouns and not any(overlap(one, api) for one in shown)]
    if not usable:
        return None
    several = kind in ("parallel", "multi")
    if several and len(usable) < 2:
        return None
    called = tuple(rng.sample(usable, 2)) if several else (rng.choice(usable),)
    for number, api in enumerate(called):
        turn = number if kind == "multi" else 0
        if not draft.add(api, absent=kind == "empty", omit=kind == "missing", turn=turn):
            return None
    return called
