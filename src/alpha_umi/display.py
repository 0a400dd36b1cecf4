"""What people see while something runs: training and evaluation progress, and an agent at work."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from alpha_umi.tools.text import stripped
from alpha_umi.transcript import IGNORED, Transcript

if TYPE_CHECKING:
    from alpha_umi.agent import Event
    from alpha_umi.training.job import Progress as TrainingProgress
    from alpha_umi.training.loop import StepReport

COLORS = {
    "planner": "cyan",
    "caller": "yellow",
    "tool": "magenta",
    "summarizer": "green",
    "assistant": "blue",
    "stop": "red",
}
_SPEAKERS = {
    "rationale": "planner", "decision": "planner", "call": "caller", "observation": "tool",
    "answer": "summarizer", "refusal": "planner", "branch": "stop", "stop": "stop",
}  # fmt: skip
_QUIET_SECONDS = 15.0
_SMOOTHING = 0.9
_LONGEST = 600


class _Bars:
    """Progress bars on a terminal; a line now and then where there is none."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._spoken = 0.0

    def update(self, name: str, done: int, total: int, note: str = "") -> None:
        """Moves the bar of this name, made when it is first heard of."""
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(name, total=total, note=note)
        self.progress.update(self._tasks[name], completed=done, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and (done == total or now - self._spoken > _QUIET_SECONDS):
            self._spoken = now
            self.console.print(f"{name}: {done}/{total} {note}", highlight=False, markup=False)

    def count(self, name: str, done: int, note: str = "") -> None:
        """Counts what has no known end."""
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(name, total=None, note=note)
        self.progress.update(self._tasks[name], completed=done, note=note)


@contextmanager
def bars(console: Console) -> Iterator[_Bars]:
    """Progress bars for the length of a block."""
    shown = _Bars(console)
    with shown.progress:
        yield shown


class _Smoothed:
    """Losses and speed of a stage, smoothed over some steps."""

    def __init__(self) -> None:
        self.losses: dict[str, float] = {}
        self.speed = 0.0

    def note(self, report: StepReport) -> str:
        """A line for the bar."""
        for name, value in report.losses.items():
            self.losses[name] = _SMOOTHING * self.losses.get(name, value) + (1 - _SMOOTHING) * value
        now = report.tokens / max(report.seconds, 1e-9)
        self.speed = _SMOOTHING * (self.speed or now) + (1 - _SMOOTHING) * now
        losses = " ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        return f"loss {losses}  {self.speed:,.0f} tok/s"


def training_bars(shown: _Bars, prefix: str = "") -> Callable[[TrainingProgress], None]:
    """Shows fine-tuning: a bar a stage with the loss of each role, tokens a second and the time left."""
    state: dict[str, _Smoothed] = {}

    def on_step(progress: TrainingProgress) -> None:
        name = prefix + progress.name
        note = state.setdefault(name, _Smoothed()).note(progress.report)
        shown.update(name, progress.report.step, progress.report.steps, note)

    return on_step


def pretraining_bars(shown: _Bars) -> Callable[[StepReport], None]:
    """Shows pretraining."""
    state = _Smoothed()
    return lambda report: shown.update("pretraining", report.step, report.steps, state.note(report))


def agent_display(console: Console) -> Callable[[Event], None]:
    """Prints an agent's run as it happens, each role in its colour; on a terminal, spans as they are written."""
    growing = _Growing(console)

    def on_event(event: Event) -> None:
        if event.kind == "writing":
            growing.show(event.voice or "assistant", event.text)
            return
        growing.end()
        speaker = _SPEAKERS[event.kind]
        text = event.text if len(event.text) <= _LONGEST else event.text[:_LONGEST] + " …"
        if event.kind == "decision":
            text = f"→ {text}"
        console.print(_said(speaker, text))

    return on_event


def _said(speaker: str, text: str) -> Text:
    return Text.assemble((f"{speaker:>10}  ", f"bold {COLORS[speaker]}"), (text, COLORS[speaker]))


class _Growing:
    """The span that is being written, below what has been said; it goes when it is complete. Only on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def show(self, speaker: str, text: str) -> None:
        if not self._console.is_terminal:
            return
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
            self._console.show_cursor(True)  # whatever ends the run, the cursor is there
        self._live.update(_said(speaker, stripped(text)), refresh=True)

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def transcript_view(transcript: Transcript, decode: Callable[[list[int]], str]) -> Text:
    """A transcript as the model sees it: tokens in their role's colour, underlined where they are in the loss."""
    view = Text()
    for segment in transcript.segments:
        color = COLORS.get(segment.kind, "default")
        header = transcript.ids[segment.start : segment.span_start]
        view.append(decode(header), style=f"bold reverse {color}")
        underline = " underline" if segment.trained else " dim"
        _append_tokens(view, transcript.ids[segment.span_start : segment.span_stop], decode, f"{color}{underline}")
        view.append(decode(transcript.ids[segment.span_stop : segment.stop]), style="dim")
        if not view.plain.endswith("\n"):
            view.append("\n")
    return view


def transcript_lengths(transcript: Transcript) -> Table:
    """How many tokens each kind of segment has, and how many of them are in the loss."""
    table = Table("segment", "count", "tokens", "in the loss", box=None, header_style="bold")
    for kind in dict.fromkeys(segment.kind for segment in transcript.segments):
        mine = [segment for segment in transcript.segments if segment.kind == kind]
        tokens = sum(segment.stop - segment.start for segment in mine)
        learned = sum(segment.span_stop - segment.span_start for segment in mine if segment.trained)
        table.add_row(Text(kind, style=COLORS.get(kind, "default")), str(len(mine)), str(tokens), str(learned))
    learned = sum(label != IGNORED for label in transcript.labels())
    table.add_row("all", str(len(transcript.segments)), str(len(transcript.ids)), str(learned))
    return table


@dataclass(frozen=True)
class TokenRow:
    """A prompt and what has to be written after it, as ids.

    Attributes:
        role: Whose row it is.
        prompt: What is read.
        target: What is learned.
        decode: Text of its ids.
    """

    role: str
    prompt: list[int]
    target: list[int]
    decode: Callable[[list[int]], str]


def rows_view(rows: Iterable[TokenRow]) -> Text:
    """Rows as models see them: the prompt dim, what is learned underlined and in the role's colour."""
    view = Text()
    for number, row in enumerate(rows, 1):
        color = COLORS.get(row.role, "blue")
        title = f" row {number}, {row.role}: {len(row.prompt)} tokens read, {len(row.target)} learned "
        view.append(title, style=f"bold reverse {color}").append("\n")
        _append_tokens(view, row.prompt, row.decode, "dim")
        _append_tokens(view, row.target, row.decode, f"{color} underline")
        view.append("\n\n")
    return view


def rows_lengths(rows: Sequence[TokenRow]) -> Table:
    """How many rows each role has, how many tokens they have, and how many of them are in the loss."""
    table = Table("role", "rows", "tokens", "in the loss", "longest", box=None, header_style="bold")
    for role in dict.fromkeys(row.role for row in rows):
        mine = [row for row in rows if row.role == role]
        learned = sum(len(row.target) for row in mine)
        lengths = [len(row.prompt) + len(row.target) for row in mine]
        color = COLORS.get(role, "blue")
        table.add_row(Text(role, style=color), str(len(mine)), str(sum(lengths)), str(learned), str(max(lengths)))
    return table


def _append_tokens(view: Text, ids: list[int], decode: Callable[[list[int]], str], style: str) -> None:
    """Appends ids token by token, every other one bold; tokens that only together are a character, together.

    Each is decoded after the one before it, since some tokenizers leave out the space that opens a text.
    """
    before = shown = number = 0
    for stop in range(1, len(ids) + 1):
        text = decode(ids[before:stop])
        if text.endswith("\ufffd") and stop < len(ids):
            continue
        view.append(text[len(decode(ids[before:shown])) :], style=style if number % 2 else f"{style} bold")
        before, shown, number = shown, stop, number + 1


def html_page(*parts: RenderableType) -> str:
    """What is shown, as an HTML page."""
    console = Console(record=True, width=120, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for part in parts:
        console.print(part)
    return console.export_html(inline_styles=True)


def stats_tables(figures: Mapping[str, Any]) -> list[Table]:
    """What `alpha_umi.data.stats.Stats.to_json` gives, as tables."""
    counts = Table("what", "count", box=None, header_style="bold")
    for name, value in figures.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {count}" for key, count in value.items()) if name != "lengths" else None
        if value is not None:
            counts.add_row(name.replace("_", " "), str(value))
    columns = list(next(iter(figures["lengths"].values()), {}))
    lengths = Table("length", *columns, box=None, header_style="bold")
    for name, row in figures["lengths"].items():
        lengths.add_row(name.replace("_", " "), *(f"{row[column]:g}" for column in columns))
    return [counts, lengths]
