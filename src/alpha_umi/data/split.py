"""Splits without leaks: trajectories that share a key stay on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from alpha_umi.errors import UserError
from alpha_umi.trajectory import Trajectory

Key = Callable[[Trajectory], str]


def by_instruction(trajectory: Trajectory) -> str:
    """Groups trajectories of one instruction, whatever its case and spacing."""
    return " ".join(trajectory.instruction.casefold().split())


def by_tool_set(trajectory: Trajectory) -> str:
    """Groups trajectories that were shown the same tools, in whatever order.

    Lists that share some tools count as different; where lists hold random distractors, group by an ``extra`` instead.
    """
    return "\n".join(sorted({tool.name for tool in trajectory.tools}))


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
    """The key function for a name on the command line: ``instruction``, ``tool-set`` or the path of an extra."""
    named: dict[str, Key] = {"instruction": by_instruction, "tool-set": by_tool_set}
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
        key: What a group has in common, as a function or a name (see ``key_named``).
        held_out_share: Share of the trajectories to hold out, between 0 and 1.
        seed: Another seed, other groups.

    Raises:
        UserError: The share is out of range, or there are fewer than two groups.
    """
    if not 0 < held_out_share < 1:
        raise UserError(f"the held-out share is {held_out_share}; give a number between 0 and 1, such as 0.1.")
    key = key_named(key) if isinstance(key, str) else key
    keyed = [(key(trajectory), trajectory) for trajectory in trajectories]
    sizes: dict[str, int] = {}
    for group, _ in keyed:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < 2:
        raise UserError(
            f"{len(keyed)} trajectories in {len(sizes)} group(s): a split needs two groups. Use another key."
        )
    shuffled = sorted(
        sizes, key=lambda group: hashlib.sha256(f"{seed}\n{group}".encode("utf-8", "surrogatepass")).digest()
    )
    held_out: set[str] = set()
    room = held_out_share * len(keyed)
    for group in shuffled:
        if sizes[group] <= room:
            held_out.add(group)
            room -= sizes[group]
    held_out = held_out or {min(shuffled, key=lambda group: sizes[group])}
    train = [trajectory for group, trajectory in keyed if group not in held_out]
    return train, [trajectory for group, trajectory in keyed if group in held_out]
