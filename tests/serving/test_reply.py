"""What a client is told while tokens come is never taken back, and is in the end the whole."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.agent.outcome import Event
from alpha_umi.serving.reply import Reply, SpanText, certain, cut_at
from alpha_umi.transcript import Renderer, Voice, parse_planner, parse_single
from tests.tokenizers import chatml, llama3, nano

RENDERERS = {make.__name__: Renderer(make()) for make in (nano, chatml, llama3)}
PIECES = st.lists(
    st.sampled_from(["Next: ", "Caller", "Summarizer", "Give up", "\n", " ", "Answer: ", "Call: ", "Give up: ", "N"])
    | st.text(max_size=4),
    max_size=12,
).map("".join)
STOPS = st.lists(st.sampled_from(["x", "xy", "\n\n", "Caller", "é", "東京"]), max_size=3)


def final(voice: Voice, text: str, stops: list[str]) -> tuple[str, str]:
    """The rationale and the answer that a whole span has."""
    if voice == "planner":
        return parse_planner(text)[0], ""
    if voice == "summarizer":
        cut = cut_at(text, stops)
        return "", text if cut is None else cut
    turn = parse_single(text)
    answer = turn.content or ""
    cut = cut_at(answer, stops)
    return (turn.reasoning_content or ""), answer if cut is None else cut


@pytest.mark.parametrize("voice", ["planner", "summarizer", "assistant"])
@given(text=PIECES, stops=STOPS)
def test_what_is_certain_stays_so(voice: Voice, text: str, stops: list[str]):
    rationale, answer = final(voice, text, stops)
    before = ("", "")
    for size in range(len(text) + 1):
        sure = certain(voice, text[:size], stops)
        assert all(new.startswith(old) for new, old in zip(sure, before, strict=True))
        assert rationale.startswith(sure[0])
        assert answer.startswith(sure[1])
        before = sure


def test_of_calls_nothing_is_certain():
    assert certain("caller", '{"name": "f"', []) == ("", "")
    assert certain("assistant", 'So.\nCall: {"name"', []) == ("So.", "")
    assert "assistant" in get_args(Voice)


@pytest.mark.parametrize("name", RENDERERS)
@given(text=st.text(max_size=30), sizes=st.lists(st.integers(1, 5), min_size=1))
def test_the_text_of_a_span_grows_by_whole_characters(name: str, text: str, sizes: list[int]):
    renderer = RENDERERS[name]
    ids = renderer.encode(text)
    whole, span, before = renderer.decode(ids), SpanText(renderer), ""
    at = 0
    for size in sizes * len(ids):
        now = span.add(ids[at : at + size])
        assert now.startswith(before)
        assert whole.startswith(now)
        before, at = now, at + size
    assert whole == before or not text.isascii()


@given(text=PIECES, stops=STOPS)
def test_an_answer_is_told_whole_and_cut_at_the_first_stop(text: str, stops: list[str]):
    renderer = RENDERERS["nano"]
    told: list[str] = []
    reply = Reply(renderer, stops, lambda field, part: told.append(part))
    reply.begin("summarizer")
    ids = renderer.encode(text)
    heard = 0
    while heard < len(ids):
        heard += 1
        if reply.hear(ids[heard - 1 : heard]):
            break
    said = renderer.decode(ids[:heard])
    reply.event(Event("answer", said, 0))
    assert "".join(told) == reply.content == final("summarizer", renderer.decode(ids), stops)[1]
    assert reply.stopped == (cut_at(said, stops) is not None)


def test_rationales_of_several_steps_are_paragraphs():
    told: list[str] = []
    renderer = RENDERERS["nano"]
    reply = Reply(renderer, (), lambda field, part: told.append(part))
    for text in ("One.", "", "Two."):
        reply.begin("planner")
        for token in renderer.encode(f"{text}\nNext: Caller"):
            reply.hear([token])
        reply.event(Event("rationale", text, 0))
    assert "".join(told) == reply.reasoning == "One.\n\nTwo."
