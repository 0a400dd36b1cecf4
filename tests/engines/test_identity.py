"""Role-switching over ToolWorld's transcripts writes the tokens that each role alone, from nothing, would write."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import PreTrainedModel

from alpha_umi.adapters import RoleAdapters
from alpha_umi.engines import Generation, Request, Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.stream import Stream
from alpha_umi.run_directory import load_renderer
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.transcript import ROLES, Renderer, Role
from tests.engines.test_adapters import adapted

_TIE = 1e-4


def checked(
    model: PreTrainedModel, adapters: RoleAdapters, renderer: Renderer, role: Role, request: Request, made: Generation
) -> None:
    """One forward from nothing, the role's adapter on from its header: every token is the most probable one there."""
    ids = [*request.ids, *renderer.header(role), *made.ids]
    before = len(ids) - len(made.ids) - 1
    with torch.no_grad(), adapters.routed({role: torch.arange(len(request.ids), len(ids))}):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, before:-1]
    taken = logits[torch.arange(len(made.ids)), torch.tensor(made.ids)]
    assert (logits.max(-1).values - taken).max() <= _TIE
    clear = logits.topk(2).values.diff()[:, 0].abs() > _TIE
    assert (logits.argmax(-1) == torch.tensor(made.ids))[clear].all()


def compare(steps: int, seed: int) -> int:
    """Runs episodes side by side, roles mixed and rows joining and leaving, and checks every span."""
    renderer = load_renderer(None, 256)
    model, adapters = adapted(renderer, seed)
    engine = LocalEngine(dict.fromkeys(ROLES, model), renderer, adapters=adapters, variant="alora", constrain=False)
    rng = random.Random(seed)
    stream, taken = Stream[int](engine), 0
    tasks = iter(enumerate(make_tasks("I3-Inst", steps, seed=seed)))
    episodes: dict[int, tuple[list[int], list[tuple[Role, int, int]]]] = {}
    texts: dict[int, list[int]] = {}
    asked: dict[int, Request] = {}

    def ask(number: int) -> None:
        role, _, _ = episodes[number][1][0]
        request = Request(number, role, tuple(texts[number]), rng.randrange(4, 16))
        asked[number] = request
        stream.ask(number, request, Sampling())

    def admit() -> None:
        number, task = next(tasks)
        transcript = renderer.render(solve(task))
        spans = [(s.kind, s.start, s.stop) for s in transcript.segments if s.kind in ROLES]
        episodes[number] = list(transcript.ids), spans  # pyright: ignore[reportArgumentType]
        texts[number] = list(transcript.ids[: spans[0][1]])
        ask(number)

    for _ in range(12):
        admit()
    while taken < steps:
        for number, made in stream.collect():
            gold, spans = episodes[number]
            role, start, stop = spans.pop(0)
            checked(model, adapters, renderer, role, asked[number], made)
            taken += 1
            own = [*renderer.header(role), *made.ids] if rng.random() < 0.5 else gold[start:stop]
            texts[number] += [*own, *gold[stop : spans[0][1] if spans else stop]]
            if spans:
                ask(number)
            else:
                engine.forget([number])
                admit()
    return taken


def test_the_roles_share_a_cache_and_write_what_each_would_alone():
    assert compare(36, 0) >= 36


@pytest.mark.slow
def test_so_they_do_for_a_thousand_steps():
    assert compare(1000, 1) >= 1000
