"""The worlds that can be named: from files of queries or recordings to tasks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from alpha_umi.agent import Limits
from alpha_umi.data import convert
from alpha_umi.errors import DataError, UserError
from alpha_umi.evaluation.live_run import NO_CLOCK
from alpha_umi.tools import OpenApiOptions, ToolSource
from alpha_umi.trajectory import Trajectory, UserMessage
from alpha_umi.worlds.client import VirtualSource, WorldClient
from alpha_umi.worlds.queries import Query, read_own, read_stabletoolbench
from alpha_umi.worlds.recorded import RecordedSource
from alpha_umi.worlds.running import World, WorldTask

OBSERVATION_BYTES = 1024
"""Of a reply that an agent reads in StableToolBench's world, as ToolBench cuts it (there: characters)."""


def stabletoolbench(queries: Sequence[Path], server: WorldClient) -> World:
    """StableToolBench's queries, whose APIs a server answers.

    Raises:
        DataError: A file has no such queries.
        UserError: Sets or queries can't be told apart.
    """

    def task(query: Query) -> WorldTask:
        async def opened() -> ToolSource:
            return VirtualSource(query.tools, query.apis, server)

        return WorldTask(query.id, query.number, (UserMessage(query.text),), opened, query.tools)

    sets = _sets(read_stabletoolbench(queries))
    return World(
        "stabletoolbench", {name: [task(query) for query in one] for name, one in sets.items()}, _fingerprints(sets),
        _without_clock, server.aclose,
    )  # fmt: skip


def own(queries: Sequence[Path], tools: Sequence[str], options: OpenApiOptions) -> World:
    """One's own queries with one's own tools, which every episode has to itself.

    Raises:
        DataError: A file has no queries.
        UserError: Sets or queries can't be told apart.
    """

    def task(query: Query) -> WorldTask:
        async def opened() -> ToolSource:
            from alpha_umi.tools.sources import open_sources

            return await open_sources(tools, query.text, options)

        return WorldTask(query.id, query.number, (UserMessage(query.text),), opened)

    sets = _sets(read_own(queries))
    tasks = {name: [task(query) for query in one] for name, one in sets.items()}
    return World("own", tasks, _fingerprints(sets) | {"tools": repr(tuple(tools))})


def recorded(name: str, paths: Sequence[Path]) -> World:
    """The conversations of a benchmark, whose recorded calls answer; each of a user's turns is a task.

    What came before the turn is taken from the recording. Records that have no faithful trajectory are left out.

    Args:
        name: The benchmark's format: ``tooltalk`` or ``traject-bench``.
        paths: Files or folders, each a set by its name.

    Raises:
        DataError: A path can't be read, or has no conversation.
        UserError: Two sets have one name.
    """
    sets = {path.name.partition(".")[0]: list(_turns(path, name)) for path in paths}
    if len(sets) < len(paths):
        raise UserError("--queries: two paths have the same name, and each is a set by its name; rename one")
    empty = next((path for path, tasks in zip(paths, sets.values(), strict=True) if not tasks), None)
    if empty is not None:
        raise DataError(empty, f"there is no conversation in it that can be read as {name}")
    fingerprints = {
        f"queries {split}": hashlib.sha256(repr([(task.id, task.messages, task.tools) for task in tasks]).encode())
        for split, tasks in sets.items()
    }
    return World(name, sets, {split: one.hexdigest() for split, one in fingerprints.items()})


def _turns(path: Path, name: str) -> Iterator[WorldTask]:
    trajectories = [one for one in convert(path, name) if isinstance(one, Trajectory)]
    asked = [
        (trajectory, at)
        for trajectory in trajectories
        for at, message in enumerate(trajectory.messages, 1)
        if isinstance(message, UserMessage)
    ]
    turns = Counter(trajectory.id for trajectory, _ in asked)
    seen: Counter[str | None] = Counter()
    for number, (trajectory, at) in enumerate(asked):
        seen[trajectory.id] += 1
        turn = f"#{seen[trajectory.id]}" if turns[trajectory.id] > 1 else ""
        yield _turn(f"{trajectory.id}{turn}", number, trajectory, at)


def _turn(name: str, number: int, trajectory: Trajectory, at: int) -> WorldTask:
    async def opened() -> ToolSource:
        return RecordedSource(trajectory, at)

    return WorldTask(name, number, trajectory.messages[:at], opened, trajectory.tools)


def _without_clock(limits: Limits) -> Limits:
    """The server's client has a time limit of its own, which ends the run and not the call."""
    return replace(limits, seconds=NO_CLOCK, tool_timeout=NO_CLOCK, tool_bytes=OBSERVATION_BYTES)


def _sets(queries: Sequence[Query]) -> dict[str, list[Query]]:
    sets: dict[str, list[Query]] = {}
    for query in queries:
        sets.setdefault(query.split, []).append(query)
    return sets


def _fingerprints(sets: Mapping[str, Sequence[Query]]) -> dict[str, str]:
    """Of each set, what its queries say."""
    return {
        f"queries {name}": hashlib.sha256(repr([(q.id, q.text, q.tools, q.apis) for q in one]).encode()).hexdigest()
        for name, one in sets.items()
    }
