"""Recall of tool retrieval: does an index of all tools of a data set find those that its trajectories call?

This is ToolBench's open-domain setting: every tool of the file is a candidate for each of its instructions. The tools
to be found are those of its own list that a trajectory calls, whatever came of the calls; what it calls beside its
list, or malformed, is none. Tools that differ in their schema are different tools, also under one name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alpha_umi.errors import UserError
from alpha_umi.evaluation.statistics import Interval, bootstrap_mean
from alpha_umi.tools.retrieve import Index, recall_at
from alpha_umi.trajectory import AssistantMessage, Tool, Trajectory


@dataclass(frozen=True)
class Recall:
    """How much of what is called was found.

    Attributes:
        recall: By K, the mean share of an instruction's tools that are among the first K.
        ci95: By K, its 95 % bootstrap interval over instructions.
        instructions: Those scored.
        without_calls: Trajectories that call no tool of theirs; they are not scored.
        tools: Candidates.
    """

    recall: dict[int, float]
    ci95: dict[int, Interval]
    instructions: int
    without_calls: int
    tools: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; K is a key in words."""
        return {
            "recall": {str(k): value for k, value in self.recall.items()},
            "ci95": {str(k): list(interval) for k, interval in self.ci95.items()},
            "n": {"instructions": self.instructions, "without_calls": self.without_calls, "tools": self.tools},
        }


def retrieval_recall(
    trajectories: Iterable[Trajectory],
    index: Callable[[Sequence[Tool]], Index],
    ks: Sequence[int],
    on_progress: Callable[[int, int], None] | None = None,
) -> Recall:
    """Recall at each K over the instructions of trajectories.

    Args:
        trajectories: With their tools and calls.
        index: Makes an index of tools; see `alpha_umi.tools.retrieve.open_retriever`.
        ks: How many tools an agent would be shown.
        on_progress: Told (instructions done, instructions in all).

    Raises:
        UserError: None of them calls a tool of its list.
    """
    candidates: dict[str, Tool] = {}
    wanted: list[tuple[str, frozenset[str]]] = []
    for trajectory in trajectories:
        candidates |= {tool.schema: tool for tool in trajectory.tools if tool.schema not in candidates}
        wanted.append((trajectory.instruction, _called(trajectory)))
    scored = [(instruction, called) for instruction, called in wanted if called]
    if not scored:
        raise UserError("no trajectory of the data calls a tool of its own list: there is nothing to be found")
    recalls: dict[int, list[float]] = {k: [] for k in ks}
    made = index(list(candidates.values()))
    for number, (instruction, called) in enumerate(scored, 1):
        found = [tool.schema for tool in made.ranked(instruction)]
        for k in ks:
            recalls[k].append(recall_at(k, found, called))
        if on_progress is not None:
            on_progress(number, len(scored))
    means = {k: fmean(values) for k, values in recalls.items()}
    intervals = {k: bootstrap_mean(values) for k, values in recalls.items()}
    return Recall(means, intervals, len(scored), len(wanted) - len(scored), len(candidates))


def _called(trajectory: Trajectory) -> frozenset[str]:
    """Schemas of the tools that are called."""
    names = {
        call.name
        for message in trajectory.messages
        if isinstance(message, AssistantMessage)
        for call in message.tool_calls
        if not call.malformed
    }
    return frozenset(tool.schema for tool in trajectory.tools if tool.name in names)
