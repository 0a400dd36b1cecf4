"""From trajectories to batches: whose words are in the loss, and which rows a step sees.

Every trajectory is one row, whatever the number of its steps. A step's batch depends on the recipe and the step number
alone, so systems can be given the same trajectories equally often and a resumed run sees what it would have seen.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from alpha_umi.data.rationales import drop
from alpha_umi.errors import DataError, UserError
from alpha_umi.toolworld import make_conversations
from alpha_umi.training.batch import GROUPS, Batch, Row, collate
from alpha_umi.training.processes import ALONE, Processes
from alpha_umi.training.recipe import DataRecipe
from alpha_umi.training.reword import reword
from alpha_umi.trajectory import AssistantMessage, Decision, Trajectory, read_jsonl
from alpha_umi.transcript import IGNORED, Renderer, Transcript, Voice

WINDOW = 16
"""Steps whose rows are drawn together, sorted by length and dealt out, so that rows of a batch are equally long."""

_SAMPLE = 32
_CHUNK = 64
_FADE = 0.35
"""Share of the global stage over which easy episodes fade out."""


@dataclass(frozen=True)
class Source:
    """An endless, indexed supply of trajectories.

    Attributes:
        get: The trajectory with an index from 0 on; ``easy`` is the chance of a short one (ToolWorld only).
        fingerprint: Names the data.
        size: Distinct trajectories, or None if there is no end to them.
    """

    get: Callable[[int, float], Trajectory]
    fingerprint: str
    size: int | None = None


def open_source(data: DataRecipe) -> Source:
    """Opens a recipe's data.

    Raises:
        DataError: The file is missing, empty or malformed.
    """
    if data.rationales == "drop":
        source = open_source(data.model_copy(update={"rationales": "keep"}))
        return replace(
            source, get=lambda index, easy: drop(source.get(index, easy)),
            fingerprint=f"{source.fingerprint}/no rationales",
        )  # fmt: skip
    if data.source == "toolworld":
        return Source(
            lambda index, easy: _toolworld(data.seed, index, round(easy, 1), data.instructions),
            f"toolworld/train/{data.seed}/{data.easy}/{data.instructions}",
        )
    trajectories = list(read_jsonl(data.source))
    if not trajectories:
        raise DataError(data.source, "holds no trajectory")

    def get(index: int, easy: float) -> Trajectory:
        epoch, place = divmod(index, len(trajectories))
        return trajectories[_order(data.seed, epoch, len(trajectories))[place]]

    digest = hashlib.sha256(Path(data.source).read_bytes()).hexdigest()[:16]
    return Source(get, f"{Path(data.source).name}/{digest}/{data.seed}", len(trajectories))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> list[int]:
    order = list(range(size))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return order


def _toolworld(seed: int, index: int, easy: float, instructions: int) -> Trajectory:
    """Training conversation ``index``; they are made in chunks, each with a seed of its own."""
    chunk, place = divmod(index, _CHUNK)
    return _toolworld_chunk(seed, chunk, easy, instructions)[place]


@lru_cache(maxsize=64)
def _toolworld_chunk(seed: int, chunk: int, easy: float, instructions: int) -> list[Trajectory]:
    return list(make_conversations("train", _CHUNK, seed * 1_000_003 + chunk, easy, instructions))


def _speaks(trajectory: Trajectory, voices: Iterable[Voice]) -> bool:
    """Whether one of the voices writes anything: a quick look, before anything is rendered."""
    turns = [m for m in trajectory.messages if isinstance(m, AssistantMessage) and m.decision is not None]
    wanted = {"caller": Decision.CALL, "summarizer": Decision.FINISH}
    return any(voice not in wanted or any(t.decision is wanted[voice] for t in turns) for voice in voices) and bool(
        turns
    )


def make_row(transcript: Transcript, voices: Iterable[Voice]) -> Row | None:
    """A transcript as a row with the loss on these voices, cut after the last loss token; None if there is none."""
    wanted = frozenset(voices)
    labels = transcript.labels(wanted)
    last = max((i for i, label in enumerate(labels) if label != IGNORED), default=-1)
    if last < 1:
        return None
    group = [0] * len(transcript.ids)
    for segment in transcript.segments:
        if segment.kind in GROUPS:
            group[segment.span_start : segment.span_stop] = [GROUPS.index(segment.kind)] * (
                segment.span_stop - segment.span_start
            )
    learned = tuple(s for s in transcript.segments if s.kind in wanted and labels[s.span_start] != IGNORED)
    return Row(transcript.ids[: last + 1], labels[: last + 1], group[: last + 1], segments=learned)


@dataclass
class Batches:
    """The batches of one stage; call it with a step.

    Args:
        source: Trajectories.
        renderer: Turns them into transcripts.
        voices: In the loss.
        batch_tokens: Tokens a step, about, padding included.
        max_length: Longer transcripts are cut at the last segment that fits.
        seed: Decides the order of batches and rationale dropout.
        first: Index of the first trajectory, so that stages can be given different ones.
        balanced: Weigh loss tokens so that every voice counts the same in a batch.
        steps: Length of the stage, for fading out ``easy`` episodes.
        easy: Share of short episodes at the start.
        rationale_dropout: Share of rows rendered without rationales.
        reword: Share of rows whose schemas' words are exchanged for others throughout.
        processes: Those among whom each step's rows are shared out.
    """

    source: Source
    renderer: Renderer
    voices: Sequence[Voice]
    batch_tokens: int
    max_length: int
    seed: int = 0
    first: int = 0
    balanced: bool = False
    steps: int = 0
    easy: float = 0.0
    rationale_dropout: float = 0.0
    reword: float = 0.0
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        self._window: tuple[int, list[list[Row]]] = (-1, [])
        looked_at, tokens = self._sample()
        if not tokens:
            raise UserError(
                f"no trajectory of the data has a span of {', '.join(self.voices)} within {self.max_length} tokens; "
                "raise max_length or check the data with `umi data inspect`"
            )
        self._rows_a_window = max(WINDOW, round(WINDOW * self.batch_tokens * looked_at / tokens))

    def _sample(self) -> tuple[int, int]:
        """How many trajectories were looked at, and the tokens of their rows: more than a few where few have one."""
        tokens = 0
        for number in range(max(_SAMPLE, self.source.size or 0)):
            if number >= _SAMPLE and tokens:
                return number, tokens
            row = self._row(self.first + number, 0.0)
            tokens += len(row.ids) if row is not None else 0
        return max(_SAMPLE, self.source.size or 0), tokens

    def rows(self, step: int) -> Sequence[Row]:
        """This process's share of `all_rows`."""
        return self.processes.share(self.all_rows(step))

    def all_rows(self, step: int) -> list[Row]:
        """The rows of this step; the same for the same step, whatever was asked for before, in every process."""
        window, place = divmod(step, WINDOW)
        if self._window[0] != window:
            self._window = (window, self._deal(window))
        return self._window[1][place]

    def __call__(self, step: int) -> Batch:
        """This process's share of the rows of this step as a batch."""
        batch = collate(self.rows(step))
        return replace(batch, weight=_balance(batch.group, self.all_rows(step))) if self.balanced else batch

    def trajectories(self, steps: int) -> int:
        """How many trajectories ``steps`` steps take."""
        return round(self._rows_a_window * steps / WINDOW)

    def steps_for(self, trajectories: int) -> int:
        """How many steps take about this many trajectories."""
        return max(1, round(trajectories * WINDOW / self._rows_a_window))

    def _deal(self, window: int) -> list[list[Row]]:
        """The window's rows, sorted by length and cut into batches of about equal area, in random order."""
        start = self.first + window * self._rows_a_window
        easy = self._easy(window * WINDOW)
        rows = [row for i in range(self._rows_a_window) if (row := self._row(start + i, easy)) is not None]
        extra = start + self._rows_a_window - 1
        while len(rows) < WINDOW:  # data in which few trajectories have a span of these voices
            extra += 1
            row = self._row(extra, easy)
            rows += [row] if row is not None else []
        rows.sort(key=lambda row: len(row.ids))
        batches = _cut(rows, WINDOW)
        random.Random(f"deal/{self.seed}/{window}").shuffle(batches)
        return batches

    def _easy(self, step: int) -> float:
        return self.easy * max(0.0, 1.0 - step / (_FADE * self.steps)) if self.steps else 0.0

    def _row(self, index: int, easy: float) -> Row | None:
        trajectory = self.source.get(index, easy)
        if not _speaks(trajectory, self.voices):
            return None
        voices: Sequence[Voice] = self.voices
        others: list[Voice] = [voice for voice in voices if voice not in ("planner", "assistant")]
        if others and random.Random(f"drop/{self.seed}/{index}").random() < self.rationale_dropout:
            # a history without rationales is to be read, not to be written: the planner learns nothing from it
            trajectory, voices = drop(trajectory), others
        rng = random.Random(f"reword/{self.seed}/{index}")
        if rng.random() < self.reword:
            trajectory = reword(trajectory, rng)
        transcript = self.renderer.render(trajectory)
        if len(transcript.ids) > self.max_length:
            transcript = transcript.cut(self.max_length)
        return make_row(transcript, voices)


def _cut(rows: list[Row], parts: int) -> list[list[Row]]:
    """Cuts sorted rows into ``parts`` non-empty runs of about the same number of tokens."""
    total = sum(len(row.ids) for row in rows)
    batches: list[list[Row]] = [[]]
    done = 0
    for number, row in enumerate(rows):
        left = parts - len(batches)
        if batches[-1] and left and (done >= total * len(batches) / parts or len(rows) - number <= left):
            batches.append([])
        batches[-1].append(row)
        done += len(row.ids)
    return batches


def _balance(group: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Weights (float32 [N]) under which each group present in the rows has the same share of the loss."""
    counts = Counter(
        mine for row in rows for mine, label in zip(row.group[1:], row.labels[1:], strict=True) if label != IGNORED
    )
    return 1.0 / torch.tensor([float(max(1, counts[mine])) for mine in range(len(GROUPS))])[group]
