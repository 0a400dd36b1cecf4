"""What a server needs of an engine: tokens as they are chosen, and generation that can be left between two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from alpha_umi.engines import Ending, Generation, Request, Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.stream import Stream
from alpha_umi.transcript import Renderer
from tests.engines.test_local_engine import make, prompts

WARM = Sampling(temperature=1.0, seed=3, max_new_tokens=20)
COLD = Sampling(max_new_tokens=20)


@pytest.fixture(scope="module")
def engine(renderer: Renderer) -> LocalEngine:
    return LocalEngine({"planner": make("llama", renderer)}, renderer)


def asked(renderer: Renderer, listen: Callable[[int, Sequence[int]], bool] | None = None) -> list[Request]:
    def heard(number: int, tokens: Sequence[int]) -> bool:
        return listen is not None and listen(number, tokens)

    texts = enumerate(prompts(renderer, [20, 30, 40, 50]))
    return [Request(n, "planner", ids, listener=partial(heard, n) if listen else None) for n, ids in texts]


def drained(stream: Stream[int], interrupt: Callable[[], bool] | None = None) -> dict[int, Generation]:
    made: dict[int, Generation] = {}
    while len(made) < 4:
        made |= dict(stream.collect(interrupt))
    return made


@pytest.mark.parametrize("grammar", [None, "start: /[a-z ]{10,60}/"])
def test_a_listener_is_told_every_token_once(renderer: Renderer, engine: LocalEngine, grammar: str | None):
    heard: dict[int, list[int]] = {n: [] for n in range(4)}

    def listen(number: int, tokens: Sequence[int]) -> bool:
        heard[number] += tokens
        return False

    requests = asked(renderer, listen)
    requests = [Request(r.session, r.voice, r.ids, grammar=grammar, listener=r.listener) for r in requests]
    made = engine.generate(requests, WARM)
    assert heard == {n: list(one.ids) for n, one in enumerate(made)}
    engine.forget(range(4))


def test_a_listener_can_end_a_span(renderer: Renderer, engine: LocalEngine):
    count = [0] * 4

    def listen(number: int, tokens: Sequence[int]) -> bool:
        count[number] += len(tokens)
        return number == 1 and count[1] >= 5

    whole = engine.generate(asked(renderer), WARM)
    made = engine.generate(asked(renderer, listen), WARM)
    assert (made[1].ids, made[1].ended) == (whole[1].ids[:5], Ending.STOPPED)
    assert [made[n].ids for n in (0, 2, 3)] == [whole[n].ids for n in (0, 2, 3)]
    engine.forget(range(4))


@pytest.mark.parametrize("sampling", [COLD, WARM], ids=["greedy", "sampled"])
def test_spans_that_are_interrupted_at_every_token_are_the_same(
    renderer: Renderer, engine: LocalEngine, sampling: Sampling
):
    whole = engine.generate(asked(renderer), sampling)
    engine.forget(range(4))
    stream = Stream[int](engine)
    for n, request in enumerate(asked(renderer)):
        stream.ask(n, request, sampling)
    made = drained(stream, lambda: True)
    assert [made[n].ids for n in range(4)] == [one.ids for one in whole]
    engine.forget(range(4))


def test_spans_that_can_not_be_in_one_batch_take_turns(renderer: Renderer, engine: LocalEngine):
    order: list[str] = []
    long, short = (Sampling(temperature=1.0, seed=seed, max_new_tokens=40) for seed in (1, 2))

    def listen(name: str) -> Callable[[Sequence[int]], bool]:
        return lambda tokens: order.append(name) is not None

    (ids,) = prompts(renderer, [20])
    stream = Stream[str](engine)
    for session, (name, sampling) in enumerate((("long", long), ("short", short))):
        stream.ask(name, Request(session, "planner", ids, listener=listen(name)), sampling)
    while stream._begun or stream._waiting:
        stream.collect(lambda: False)
    assert order.index("short") < len(order) - 1 - order[::-1].index("long")
    engine.forget(range(2))


def test_what_is_dropped_does_not_come_back(renderer: Renderer, engine: LocalEngine):
    stream = Stream[int](engine)
    for n, request in enumerate(asked(renderer)):
        stream.ask(n, request, COLD)
    stream.drop(3)
    stream.collect(lambda: True)
    stream.drop(2)
    engine.forget([2])
    made: dict[int, Generation] = {}
    while arrived := stream.collect():
        made |= dict(arrived)
    assert made.keys() == {0, 1}
    assert not stream._begun
