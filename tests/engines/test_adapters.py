"""Roles that share a backbone: the tokens of each role are those of its adapter computed from nothing."""

from __future__ import annotations

import random
from typing import cast

import pytest
import torch
from transformers import PreTrainedModel

from alpha_umi.adapters import RoleAdapters
from alpha_umi.engines import Request, Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.run_directory import Variant
from alpha_umi.transcript import ROLES, Renderer, Role
from tests.engines.test_local_engine import make
from tests.models import random_adapters
from tests.tokenizers import chatml, nano

MARKERS = {"one token a header": nano, "several": chatml}


def adapted(renderer: Renderer, seed: int = 0, architecture: str = "llama") -> tuple[PreTrainedModel, RoleAdapters]:
    model = make(architecture, renderer, seed)
    return model, random_adapters(model, seed, 0.2)


def from_nothing(
    model: PreTrainedModel, adapters: RoleAdapters, renderer: Renderer, variant: Variant, request: Request, most: int
) -> tuple[int, ...]:
    """A greedy span when every token is computed anew for each one that is chosen."""
    role = cast("Role", request.voice)
    ids = [*request.ids, *renderer.header(role)]
    out: list[int] = []
    while len(out) < most and out[-1:] != [renderer.markers.end]:
        row = torch.tensor([ids + out])
        route = role if variant == "lora" else {role: torch.arange(len(request.ids), row.shape[1])}
        with torch.no_grad(), adapters.routed(route):
            out.append(int(model(row, use_cache=False).logits[0, -1].argmax()))
    return tuple(out)


@pytest.mark.parametrize("variant", ["lora", "alora"])
@pytest.mark.parametrize("markers", MARKERS)
def test_conversations_of_several_turns_are_as_if_computed_from_nothing(variant: Variant, markers: str):
    """Roles differ within a batch, rows in length; every turn is appended and read by whoever comes next."""
    renderer = Renderer(MARKERS[markers]())
    model, adapters = adapted(renderer)
    engine = LocalEngine(dict.fromkeys(ROLES, model), renderer, adapters=adapters, variant=variant, constrain=False)
    rng = random.Random(5)
    size = len(renderer.tokenizer)
    texts = [[rng.randrange(20, size) for _ in range(rng.randrange(5, 60))] for _ in range(4)]
    for turn in range(3):
        requests = [Request(n, ROLES[(n + turn) % 3], tuple(ids)) for n, ids in enumerate(texts)]
        answers = engine.generate(requests, Sampling(max_new_tokens=10))
        for request, answer in zip(requests, answers, strict=True):
            assert answer.ids == from_nothing(model, adapters, renderer, variant, request, 10)
            texts[request.session] += [*renderer.header(request.voice), *answer.ids]
            texts[request.session] += [rng.randrange(20, size) for _ in range(rng.randrange(0, 30))]


def test_one_cache_serves_all_roles_and_reads_every_token_once():
    renderer = Renderer(nano())
    model, adapters = adapted(renderer)
    engine = LocalEngine(dict.fromkeys(ROLES, model), renderer, adapters=adapters, variant="alora", constrain=False)
    ids = list(range(30, 70))
    prefilled = 0
    for role in (*ROLES, *ROLES):
        (answer,) = engine.generate([Request(0, role, tuple(ids))], Sampling(max_new_tokens=6))
        assert answer.prefill_tokens + answer.cached_tokens == len(ids) + 1
        prefilled += answer.prefill_tokens
        assert {engine.cached(0, other) for other in ROLES} == {len(ids)}
        ids += [*renderer.header(role), *answer.ids]
    headers, spans = 6, len(ids) - 40 - 6
    assert prefilled == 40 + headers + (headers - 1) + spans - len(answer.ids), "each header once more, as history"


def test_separate_adapters_keep_what_they_have_read_to_themselves():
    renderer = Renderer(nano())
    model, adapters = adapted(renderer)
    engine = LocalEngine(dict.fromkeys(ROLES, model), renderer, adapters=adapters, variant="lora", constrain=False)
    engine.generate([Request(0, "planner", tuple(range(30, 60)))], Sampling(max_new_tokens=4))
    assert engine.cached(0, "planner") > 30
    assert engine.cached(0, "caller") == engine.cached(0, "summarizer") == 0


def test_a_fork_shares_the_backbones_prefix_with_every_role():
    renderer = Renderer(nano())
    model, adapters = adapted(renderer)
    engine = LocalEngine(dict.fromkeys(ROLES, model), renderer, adapters=adapters, variant="alora", constrain=False)
    ids = tuple(range(30, 70))
    engine.prefill([Request(0, "planner", ids)])
    engine.fork(0, 1, 40)
    requests = [Request(0, "caller", ids), Request(1, "summarizer", ids)]
    answers = engine.generate(requests, Sampling(max_new_tokens=6))
    for request, answer in zip(requests, answers, strict=True):
        assert answer.ids == from_nothing(model, adapters, renderer, "alora", request, 6)
        assert answer.prefill_tokens <= 2


def test_masks_and_indices_choose_the_same_adapters():
    renderer = Renderer(nano())
    model, adapters = adapted(renderer)
    adapters.fuse()
    ids = torch.arange(20, 44).view(2, 12)
    owner = torch.randint(-1, 3, ids.shape, generator=torch.Generator().manual_seed(0))
    flat = owner.flatten()
    indices = {role: (flat == number).nonzero()[:, 0] for number, role in enumerate(ROLES)}
    with torch.no_grad():
        with adapters.routed(indices):
            one = model(ids, use_cache=False).logits
        with adapters.routed(adapters.mask(owner)):
            torch.testing.assert_close(model(ids, use_cache=False).logits, one, rtol=1e-4, atol=1e-4)
