"""What a set of trajectories holds: counts, decisions, lengths."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alpha_umi.trajectory import AssistantMessage, Decision, ToolMessage, Trajectory
from alpha_umi.transcript import Renderer

PERCENTILES = (5, 25, 50, 75, 95)


@dataclass
class Stats:
    """Counts over trajectories; ``add`` each, then read ``to_json``.

    Attributes:
        renderer: Counts tokens as a model sees them; None counts none.
    """

    renderer: Renderer | None = None
    decisions: Counter[str] = field(default_factory=Counter)
    calls_a_step: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    values: dict[str, list[int]] = field(default_factory=dict)
    tools: set[str] = field(default_factory=set)

    def add(self, trajectory: Trajectory) -> None:
        """Counts one trajectory."""
        self.counts["trajectories"] += 1
        self.tools |= {tool.name for tool in trajectory.tools}
        self._note("tools", len(trajectory.tools))
        steps = [m for m in trajectory.messages if isinstance(m, AssistantMessage)]
        self._note("steps", sum(step.decision is not None for step in steps))
        for step in steps:
            self._step(step)
        for message in trajectory.messages:
            if isinstance(message, ToolMessage):
                self.counts["observations"] += 1
                self.counts["error_observations"] += is_error(message.content)
        if self.renderer is not None:
            self._tokens(trajectory, self.renderer)

    def _step(self, step: AssistantMessage) -> None:
        self.decisions[step.decision.value if step.decision else "none"] += 1
        if step.decision is None:
            return
        self.counts["with_rationale"] += bool((step.reasoning_content or "").strip())
        if step.decision is Decision.CALL:
            self.calls_a_step[len(step.tool_calls)] += 1
            self.counts["malformed_calls"] += sum(call.malformed for call in step.tool_calls)

    def _tokens(self, trajectory: Trajectory, renderer: Renderer) -> None:
        transcript = renderer.render(trajectory)
        self._note("tokens", len(transcript.ids))
        for segment in transcript.segments:
            if segment.trained:
                self._note(f"{segment.kind}_tokens", segment.span_stop - segment.span_start)

    def _note(self, name: str, value: int) -> None:
        self.values.setdefault(name, []).append(value)

    def to_json(self) -> dict[str, Any]:
        """All of it; lengths as mean, percentiles, least and most."""
        steps = sum(count for name, count in self.decisions.items() if name != "none")
        return {
            "trajectories": self.counts["trajectories"],
            "distinct_tools": len(self.tools),
            "steps": steps,
            "decisions": dict(self.decisions.most_common()),
            "calls": sum(size * count for size, count in self.calls_a_step.items()),
            "calls_a_step": {str(size): count for size, count in sorted(self.calls_a_step.items())},
            "malformed_calls": self.counts["malformed_calls"],
            "observations": self.counts["observations"],
            "error_observations": self.counts["error_observations"],
            "rationale_coverage": round(self.counts["with_rationale"] / steps, 4) if steps else None,
            "lengths": {name: _summary(values) for name, values in self.values.items()},
        }


def _summary(values: list[int]) -> dict[str, float]:
    points = np.percentile(values, PERCENTILES)
    named = {f"p{percent}": float(point) for percent, point in zip(PERCENTILES, points, strict=True)}
    return {"mean": round(float(np.mean(values)), 2), "min": min(values), **named, "max": max(values)}


_ERROR_FIRST = re.compile(r"""\{\s*["']error["']\s*:\s*+(?!""|''|null|None|false|False|\{\}|\[\])""")


def is_error(observation: str) -> bool:
    """Whether an observation reports a failure: an object whose ``error`` isn't empty, or text that begins with it.

    An object may be JSON, what Python prints, or the beginning of either (then it has to be the first key).
    """
    text = observation.strip()
    if text[:1] == "{":
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return _ERROR_FIRST.match(text) is not None
        return isinstance(value, Mapping) and bool(value.get("error"))
    return text[:5].lower() == "error" or text.startswith("Traceback")


def stats(trajectories: Iterable[Trajectory], renderer: Renderer | None = None) -> Stats:
    """Counts trajectories; each is looked at once."""
    out = Stats(renderer)
    for trajectory in trajectories:
        out.add(trajectory)
    return out
