"""Spans that come as they are complete are those that would have come all at once."""

from __future__ import annotations

import random

import pytest
from transformers import PreTrainedModel

from alpha_umi.engines import Generation, Request, Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.engines.stream import Stream
from alpha_umi.transcript import ROLES, Renderer, Role, Voice
from tests.engines.test_adapters import adapted
from tests.engines.test_local_engine import GREEDY, WARM, make, plain, prompts
from tests.tokenizers import nano


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(nano())


def drained(stream: Stream[int]) -> dict[int, Generation]:
    out: dict[int, Generation] = {}
    while made := stream.collect():
        out |= dict(made)
    return out


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("every", [1, 8])
def test_rows_that_wait_and_rows_that_join_later_write_what_they_would_alone(
    renderer: Renderer, sampling: Sampling, every: int
):
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    engine._runners["planner"]._read_every = every
    rng = random.Random(0)
    requests = [
        Request(n, "planner", ids, rng.randrange(1, 30))
        for n, ids in enumerate(prompts(renderer, [rng.randrange(5, 90) for _ in range(24)]))
    ]
    stream, made = Stream[int](engine), dict[int, Generation]()
    for n, request in enumerate(requests):
        stream.ask(n, request, sampling)
        if n % 6 == 5:
            arrived = stream.collect()
            assert 0 < len(arrived) < 12
            made |= dict(arrived)
    made |= drained(stream)
    assert [made[n].ids for n in range(24)] == [plain(model, renderer, request, sampling) for request in requests]


def test_roles_that_share_a_cache_may_wait_in_the_middle_of_a_span(renderer: Renderer):
    model, adapters = adapted(renderer)
    voices: dict[Voice, PreTrainedModel] = dict.fromkeys(ROLES, model)
    engine = LocalEngine(voices, renderer, adapters=adapters, variant="alora", constrain=False)
    other = LocalEngine(voices, renderer, adapters=adapters, variant="alora", constrain=False)
    rng = random.Random(1)
    texts = [[rng.randrange(20, 300) for _ in range(rng.randrange(5, 60))] for _ in range(8)]
    turns = {n: 0 for n in range(8)}
    stream = Stream[Request](engine)

    def ask(n: int) -> None:
        role: Role = ROLES[(n + turns[n]) % 3]
        turns[n] += 1
        request = Request(n, role, tuple(texts[n]), rng.randrange(1, 20))
        stream.ask(request, request, Sampling())

    for n in turns:
        ask(n)
    answered = 0
    while arrived := stream.collect():
        for request, made in arrived:
            (alone,) = other.generate([request], Sampling())
            assert made.ids == alone.ids
            assert made.prefill_tokens + made.cached_tokens == len(request.ids) + 1
            answered += 1
            texts[request.session] += [*renderer.header(request.voice), *made.ids, 25, 26]
            if turns[request.session] < 4:
                ask(request.session)
    assert answered == 32


def test_two_spans_of_one_session_leave_each_other_alone(renderer: Renderer):
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    long, other = prompts(renderer, [150, 60])
    engine.generate([Request(0, "planner", long[:40])], GREEDY)
    requests = [
        Request(0, "planner", long, 3), Request(0, "planner", long[:90], 20),
        Request(0, "planner", [*long[:30], *other], 30), Request(0, "planner", [*long[:40], *other], 12),
    ]  # fmt: skip
    stream = Stream[int](engine)
    for n, request in enumerate(requests):
        stream.ask(n, request, GREEDY)
    made = drained(stream)
    assert [made[n].ids for n in range(4)] == [plain(model, renderer, request, GREEDY) for request in requests]


def test_a_session_that_is_forgotten_is_generated_no_further(renderer: Renderer):
    engine = LocalEngine({"planner": make("qwen3", renderer)}, renderer)
    stream = Stream[int](engine)
    for n, ids in enumerate(prompts(renderer, [20, 30, 40])):
        stream.ask(n, Request(n, "planner", ids, 1 + 5 * n), GREEDY)
    first = dict(stream.collect())
    engine.forget([2])
    assert set(first | drained(stream)) == {0, 1}


def test_a_prompt_that_fills_the_context_comes_back_empty(renderer: Renderer):
    engine = LocalEngine({"planner": make("qwen3", renderer)}, renderer, context=64)
    stream = Stream[int](engine)
    for n, ids in enumerate(prompts(renderer, [64, 30])):
        stream.ask(n, Request(n, "planner", ids), GREEDY)
    made = drained(stream)
    assert made[0].ids == ()
    assert len(made[1].ids) == 12


def test_any_engine_answers_all_at_once(renderer: Renderer):
    stream = Stream[str](ScriptedEngine({"planner": ["one"], "caller": ["two"]}, renderer))
    stream.ask("b", Request(0, "planner", [1]), GREEDY)
    stream.ask("a", Request(1, "caller", [1]), WARM)
    said = [(key, renderer.decode(made.ids[:-1])) for key, made in stream.collect()]
    assert said == [("b", "one"), ("a", "two")]
    assert stream.collect() == []
