"""Transcripts to measure with: made up in a given shape, or read from a file of trajectories.

Two shapes are made up. ``toolbench`` is what was measured on the paper's out-of-domain test set: role spans are 0.45 of
a transcript, and the paper's layout (one sample a step) reads 5.1 times the transcript. ``long`` is what company APIs
look like: long schemas and observations, 8 steps, spans 0.12 of a transcript. The words don't matter to a clock, so the
tokens are drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alpha_umi.bench.process import Settings
from alpha_umi.errors import DataError, UserError
from alpha_umi.training.batch import GROUPS, Row
from alpha_umi.training.targets import make_row
from alpha_umi.trajectory import read_jsonl
from alpha_umi.transcript import IGNORED, ROLES, Renderer, Segment

ShapeName = Literal["toolbench", "long"]
_FIRST_ID = 20
"""Ids below are special tokens of the nano tokenizer."""


@dataclass(frozen=True)
class Shape:
    """Mean lengths in tokens; every length is drawn between a half and one and a half of it.

    Attributes:
        prompt: System, tools and user.
        calls: Calls before the answer.
        rationale: Of the planner, each step.
        call: Of the caller.
        observation: Of the tool.
        answer: Of the summarizer.
    """

    prompt: int
    calls: int
    rationale: int
    call: int
    observation: int
    answer: int


SHAPES: dict[ShapeName, Shape] = {
    "toolbench": Shape(prompt=650, calls=3, rationale=105, call=80, observation=180, answer=260),
    "long": Shape(prompt=1000, calls=7, rationale=28, call=23, observation=290, answer=60),
}


def made_up(shape: Shape, count: int, vocabulary: int, seed: int = 0) -> list[Row]:
    """Rows of this shape, labels on every role's spans."""
    return [_row(shape, random.Random(f"shape/{seed}/{index}"), vocabulary) for index in range(count)]


def rows(settings: Settings, shape: ShapeName, count: int) -> list[Row]:
    """What a benchmark measures with: rows of the shape, for ``toolbench`` those of a file if one is given.

    Raises:
        DataError: The file is missing or malformed.
        UserError: It has too few that fit into 4,096 tokens.
    """
    if settings.trajectories is None or shape != "toolbench":
        return made_up(SHAPES[shape], count, settings.vocabulary)
    from alpha_umi.run_directory import load_renderer

    return read(settings.trajectories, load_renderer(None, 256), count, 4096)


def _row(shape: Shape, rng: random.Random, vocabulary: int) -> Row:
    ids: list[int] = []
    labels: list[int] = []
    group: list[int] = []
    segments: list[Segment] = []

    def say(kind: str, mean: int) -> None:
        start, size = len(ids), max(2, round(mean * rng.uniform(0.5, 1.5)))
        ids.extend(rng.randrange(_FIRST_ID, vocabulary) for _ in range(size))
        ours = kind in ROLES
        labels.extend([IGNORED, *(ids[start + 1 :] if ours else [IGNORED] * (size - 1))])
        group.extend([GROUPS.index(kind) if ours else 0] * size)
        if kind == "planner" or kind == "caller" or kind == "summarizer":
            segments.append(Segment(kind, start, start + 1, len(ids), len(ids), True, len(segments)))

    say("user", shape.prompt)
    for _ in range(shape.calls):
        say("planner", shape.rationale)
        say("caller", shape.call)
        say("tool", shape.observation)
    say("planner", shape.rationale)
    say("summarizer", shape.answer)
    return Row(ids, labels, group, segments=segments)


def read(path: Path, renderer: Renderer, count: int, longest: int) -> list[Row]:
    """The first ``count`` trajectories of a file that fit into ``longest`` tokens.

    Raises:
        DataError: The file is missing or malformed.
        UserError: Fewer fit.
    """
    rows: list[Row] = []
    for trajectory in read_jsonl(path):
        row = make_row(renderer.render(trajectory), ROLES)
        if row is not None and len(row.ids) <= longest and {s.kind for s in row.segments} == set(ROLES):
            rows.append(row)
        if len(rows) == count:
            return rows
    if not rows:
        raise DataError(path, f"no trajectory with all three roles fits into {longest} tokens")
    raise UserError(
        f"{path}: {len(rows)} trajectories with all three roles fit into {longest} tokens, {count} are needed"
    )


def for_role(row: Row, role: str) -> Row | None:
    """The row with one role's spans in the loss, as one sequence; None if it has none."""
    mine = [segment for segment in row.segments if segment.kind == role]
    if not mine:
        return None
    labels = [IGNORED] * len(row.ids)
    for segment in mine:
        labels[segment.span_start : segment.span_stop] = row.ids[segment.span_start : segment.span_stop]
    return Row(row.ids, labels, row.group, segments=mine)


def step_by_step(row: Row, role: str) -> list[Row]:
    """The paper's layout: a sample a step of the role, which ends with its span."""
    out: list[Row] = []
    for segment in row.segments:
        if segment.kind == role:
            stop = segment.span_stop
            labels = [IGNORED] * segment.span_start + list(row.ids[segment.span_start : stop])
            out.append(Row(row.ids[:stop], labels, row.group[:stop]))
    return out


def read_by(rows: Sequence[Row]) -> int:
    """Tokens of some rows together."""
    return sum(len(row.ids) for row in rows)
