"""Splits without leaks: trajectories that share a key stay on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from alpha_umi.errors import UserError
from alpha_umi.trajectory import AssistantMessage, Trajectory

Key = Callable[[Trajectory], str]


def by_instruction(trajectory: Trajectory) -> str:
    """Groups trajectories of one instruction, whatever its case and spacing."""
    return " ".join(trajectory.instruction.casefold().split())


def by_tool_set(trajectory: Trajectory) -> str:
    """Groups trajectories that were shown the same tools, in whatever order.

    Lists that share some tools count as different; where lists hold random distractors, group by an ``extra`` instead.
    """
    return "\n".join(sorted({tool.name for tool in trajectory.tools}))


def by_called_tools(trajectories: Iterable[Trajectory]) -> Key:
    """Groups trajectories that are linked by the tools they call, directly or through others.

    So no tool that is called on one side is called on the other. Where most trajectories are linked they form one
    group, which stays in train.
    """
    parent: dict[str, str] = {}

    def root(tool: str) -> str:
        while parent.setdefault(tool, tool) != tool:
            parent[tool] = parent[parent[tool]]
            tool = parent[tool]
        return tool

    for trajectory in trajectories:
        first, *others = sorted(_called(trajectory)) or [""]
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return lambda trajectory: root(min(_called(trajectory), default=""))


def by_category(trajectory: Trajectory) -> str:
    """Groups by what the source calls its category or domain.

    Raises:
        UserError: The trajectory has no such thing in its extra.
    """
    for values in trajectory.extra.values():
        for name in ("category", "domain"):
            if isinstance(values, Mapping) and isinstance(values.get(name), str):
                return values[name]
    raise UserError(
        f"trajectory {trajectory.id or trajectory.instruction[:40]!r} has no category or domain in its extra; "
        "split by tool, by instruction or by the path of a value that all have."
    )


def by_extra(path: str) -> Key:
    """Groups by a value in ``extra``, such as ``traject-bench.sequence_name``.

    Raises:
        UserError: From the key, for a trajectory that has no such value.
    """

    def key(trajectory: Trajectory) -> str:
        value: Any = trajectory.extra
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise UserError(
                    f"trajectory {trajectory.id or trajectory.instruction[:40]!r} has no {path!r} in its extra; "
                    "split by a value that all of them have, by instruction or by tool-set."
                )
            value = value[part]
        return str(value)

    return key


def key_named(name: str) -> Key:
    """The key function for a name on the command line.

    ``instruction``, ``tool-set``, ``category`` or the path of a value in extra.
    """
    named: dict[str, Key] = {"instruction": by_instruction, "tool-set": by_tool_set, "category": by_category}
    return named.get(name) or by_extra(name)


def split_by(
    trajectories: Iterable[Trajectory], key: Key | str, held_out_share: float, seed: int = 0
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Splits into ``(train, test)`` by whole groups; order within each side is the given order.

    Which groups are held out depends on the seed and the keys only, not on the order of the trajectories. Groups are
    taken in a seeded order as long as they fit, so the held-out side has at most ``held_out_share`` of the
    trajectories, except that it never stays empty.

    Args:
        trajectories: What to split.
        key: What a group has in common, as a function or a name (``tool``, or see ``key_named``).
        held_out_share: Share of the trajectories to hold out, between 0 and 1.
        seed: Another seed, other groups.

    Raises:
        UserError: The share is out of range, or there are fewer than two groups.
    """
    _check_share(held_out_share)
    trajectories = list(trajectories)
    if isinstance(key, str):
        key = by_called_tools(trajectories) if key == "tool" else key_named(key)
    keyed = [(key(trajectory), trajectory) for trajectory in trajectories]
    sizes: dict[str, int] = {}
    for group, _ in keyed:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < 2:
        raise UserError(
            f"{len(keyed)} trajectories in {len(sizes)} group(s): a split needs two groups. Use another key."
        )
    shuffled = _shuffled(sizes, seed)
    held_out: set[str] = set()
    room = held_out_share * len(keyed)
    for group in shuffled:
        if sizes[group] <= room:
            held_out.add(group)
            room -= sizes[group]
    held_out = held_out or {min(shuffled, key=lambda group: sizes[group])}
    train = [trajectory for group, trajectory in keyed if group not in held_out]
    return train, [trajectory for group, trajectory in keyed if group in held_out]


def _called(trajectory: Trajectory) -> set[str]:
    turns = (m for m in trajectory.messages if isinstance(m, AssistantMessage))
    return {call.name for turn in turns for call in turn.tool_calls}


def _check_share(held_out_share: float) -> None:
    if not 0 < held_out_share < 1:
        raise UserError(f"the held-out share is {held_out_share}; give a number between 0 and 1, such as 0.1.")


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Names in an order that depends on the seed and the names only."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest())
