"""A span that repeats itself ends, and says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from alpha_umi.engines import Ending, Request, Sampling
from alpha_umi.engines.base import Conversation
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.repetition import before_repetition, repeats
from alpha_umi.trajectory import Tool
from alpha_umi.transcript import Renderer, Voice, parse_calls
from tests.engines.test_local_engine import make
from tests.tokenizers import nano

TIME = Tool.of("get_time", "", {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]})


def follows(renderer: Renderer, texts: Sequence[Sequence[int]]) -> PreTrainedModel:
    """A model that writes the first of these that begins like what stands after the header, over and over."""
    model = make("llama", renderer)
    headers = {renderer.header(voice)[0] for voice in ("planner", "caller", "summarizer")}

    def next_token(ids: list[int]) -> int:
        start = max(at for at, token in enumerate(ids) if token in headers) + 1
        return next(text[len(ids) - start] for text in texts if list(text[: len(ids) - start]) == ids[start:])

    seen: dict[int, list[int]] = {}

    class Base(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, **kwargs: Any) -> Any:
            hidden = torch.zeros(*input_ids.shape, 1)
            for row, (ids, slots) in enumerate(zip(input_ids.tolist(), position_ids.tolist(), strict=True)):
                known = seen.setdefault(row, [])
                for at, (token, slot) in enumerate(zip(ids, slots, strict=True)):
                    known[slot:] = [token]
                    if any(token in headers for token in known):
                        hidden[row, at] = next_token(known)
            return SimpleNamespace(last_hidden_state=hidden)

    model.__dict__["_scripted"] = (
        Base(),
        lambda hidden: torch.nn.functional.one_hot(hidden[..., 0].long(), len(renderer.tokenizer)),
    )
    return model


def written(renderer: Renderer, voice: Voice, text: Sequence[int], most: int, tools: Sequence[Tool] | None) -> Any:
    """What the engine makes of a model that would write this."""
    model = follows(renderer, [text])
    engine = LocalEngine({voice: model}, renderer)
    runner = engine._runners[voice]
    base, head = cast("Any", model)._scripted
    runner._base, runner._head = base, head
    conversation = None if tools is None else Conversation(tools, ())
    request = Request(0, voice, renderer.encode("x"), most, conversation)
    return engine.generate([request], Sampling())[0]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(nano())


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), min_size=1, max_size=80))
def test_three_times_the_same_tokens_at_the_end_are_found_and_nothing_else(before: list[int], unit: list[int]):
    tokens = before + unit * 3
    found = repeats(tokens)
    wanted = [p for p in range(8, 65) if len(tokens) >= 3 * p and tokens[-p:] * 3 == tokens[-3 * p :]]
    assert found == (wanted[0] if wanted else 0)
    if 8 <= len(unit) <= 64:
        assert found


def test_few_or_long_repetitions_are_nobodys_business():
    assert repeats([]) == 0
    assert repeats([1] * 23) == 0
    assert repeats([1] * 24) == 8
    assert repeats(list(range(65)) * 3) == 0
    assert repeats([*range(20)] * 2 + [*range(19)]) == 0


@pytest.mark.parametrize("tools", [None, (TIME,)], ids=["free", "with tools"])
def test_a_summarizer_that_goes_round_in_circles_is_stopped_after_the_third_time(renderer: Renderer, tools: Any):
    unit = [*range(40, 52)]
    made = written(renderer, "summarizer", [30, 31, *unit * 20], 200, tools)
    assert made.ended is Ending.REPETITION
    assert not made.finished
    assert list(made.ids) == [30, 31, *unit * 3]


def test_a_span_that_is_cut_for_its_length_or_ends_by_itself_says_that(renderer: Renderer):
    tokens = [*range(40, 60)]
    assert written(renderer, "summarizer", [*tokens, 3], 10, None).ended is Ending.LENGTH
    assert written(renderer, "summarizer", [*tokens, renderer.markers.end], 30, None).ended is Ending.END


def test_calls_that_repeat_are_cut_after_a_whole_call(renderer: Renderer):
    call = json.dumps({"name": "get_time", "arguments": {"zone": "Europe/Berlin"}})
    made = written(renderer, "caller", renderer.encode("\n".join([call] * 30)), 1000, (TIME,))
    assert made.ended is Ending.REPETITION
    text = renderer.decode(made.ids)
    assert text == "\n".join([call] * len(parse_calls(text)))
    assert 1 <= len(parse_calls(text)) <= 4


def test_an_argument_that_never_ends_is_cut_as_by_the_length_limit(renderer: Renderer):
    text = '{"name": "get_time", "arguments": {"zone": "' + "round and " * 100
    made = written(renderer, "caller", renderer.encode(text), 1000, (TIME,))
    assert made.ended is Ending.REPETITION
    assert renderer.decode(made.ids) == text[: len(renderer.decode(made.ids))]
    assert renderer.decode(made.ids).count("round and") < 40


def test_a_span_that_went_on_is_cut_where_it_would_have_been_stopped():
    assert before_repetition([9, *range(8), *range(8), *range(8), 1, 2]) == 25
    assert before_repetition(list(range(100))) == 100
    assert before_repetition([]) == 0
