"""A run that is watched: spans are told as they grow, and cancelling ends one in the middle."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from alpha_umi.agent import Episode, Event, Limits, StopReason, run_one
from alpha_umi.display import agent_display
from alpha_umi.engines import Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.tools import CombinedSource
from alpha_umi.trajectory import UserMessage
from alpha_umi.transcript import ROLES, Renderer
from tests.models import random_model
from tests.tokenizers import nano

LIMITS = Limits(steps=2, max_new_tokens=dict.fromkeys(ROLES, 12))


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    renderer = Renderer(nano())
    return LocalEngine(dict.fromkeys(ROLES, random_model(renderer)), renderer, constrain=False)


def episode() -> Episode:
    return Episode(0, CombinedSource([]), [UserMessage("Do it.")])


def test_a_span_is_told_as_it_grows_and_then_what_it_says(engine: LocalEngine) -> None:
    events: list[Event] = []
    run_one(engine, episode(), LIMITS, Sampling(temperature=1.0), events.append)
    first = next(number for number, event in enumerate(events) if event.kind != "writing")
    assert events[first].kind == "rationale"
    texts = [event.text for event in events[:first]]
    assert {event.voice for event in events[:first]} == {"planner"}
    assert len(texts) == 12
    assert all(later.startswith(text.rstrip("\ufffd")) for text, later in itertools.pairwise(texts))
    assert events[first].text == texts[-1].strip()


def test_cancelling_ends_a_span_at_once(engine: LocalEngine) -> None:
    written: list[str] = []

    def note(event: Event) -> None:
        written.extend([event.text] if event.kind == "writing" else [])

    outcome = run_one(engine, episode(), LIMITS, Sampling(temperature=1.0), note, cancelled=lambda: len(written) >= 3)
    assert outcome.stop_reason is StopReason.CANCELLED
    assert len(written) == 3
    assert (outcome.steps, outcome.generated_tokens) == (0, 3)


def shown(terminal: bool, *events: Event) -> str:
    out = io.StringIO()
    show = agent_display(Console(file=out, force_terminal=terminal, width=80, color_system=None, legacy_windows=False))
    for event in events:
        show(event)
    return out.getvalue()


def test_on_a_terminal_a_span_is_shown_while_it_is_written_and_stays_once() -> None:
    growing = [Event("writing", text, 0, "planner") for text in ("I", "I look", "I look\x1b[2J up")]
    done = Event("rationale", "I look up", 0)
    text = shown(True, *growing, done)
    assert "planner  I look" in text and "\x1b[2J" not in text
    assert text.endswith("planner  I look up\n") and text.endswith(shown(True, done))
    assert "\x1b[?25l" not in text.rpartition("\x1b[?25h")[2]


def test_elsewhere_only_what_is_complete_is_printed() -> None:
    done = Event("rationale", "I look up", 0)
    assert shown(False, Event("writing", "I", 0, "planner"), done) == shown(False, done) == "   planner  I look up\n"
