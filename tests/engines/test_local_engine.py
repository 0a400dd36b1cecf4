"""The in-process engine: the same tokens as computing everything from nothing, whatever is batched and cached."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alpha_umi.engines import Generation, Request, Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.sampling import uniform
from alpha_umi.errors import UserError
from alpha_umi.transcript import ROLES, Renderer
from tests.tokenizers import chatml, nano

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
GREEDY = Sampling(max_new_tokens=12)
WARM = Sampling(temperature=1.0, top_p=0.95, seed=7, max_new_tokens=12)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(nano())


def make(architecture: str, renderer: Renderer, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random model whose predictions depend on the whole context (large weights, so that no two tokens tie)."""
    torch.manual_seed(seed)
    shape = {**SHAPE, "vocab_size": len(renderer.tokenizer), **changes}
    model = {
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=16)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**shape)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape)),
    }[architecture]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "lm_head" not in name:
                parameter.normal_(0, 0.3)
    return model.eval()


def plain(
    model: PreTrainedModel, renderer: Renderer, request: Request, sampling: Sampling, context: int = 1024
) -> tuple[int, ...]:
    """What the model generates when every token is computed from nothing, alone, by the model's own forward."""
    ids = [*request.ids, *renderer.header(request.voice)]
    most = sampling.max_new_tokens if request.max_new_tokens is None else request.max_new_tokens
    most = min(most, context - len(ids))
    draws = uniform(sampling.seed, [request.session], [len(ids)], most)[0]
    out: list[int] = []
    for step in range(most):
        with torch.no_grad():
            logits = model(torch.tensor([ids + out])).logits[0, -1].double()
        if sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            probabilities, ranked = torch.softmax(logits / sampling.temperature, 0).sort(descending=True)
            kept = int((probabilities.cumsum(0) - probabilities < sampling.top_p).sum())
            total = probabilities[:kept].cumsum(0)
            place = int(torch.searchsorted(total, draws[step] * total[-1], right=True))
            token = int(ranked[min(place, kept - 1)])
        out.append(token)
        if token == renderer.markers.end:
            break
    return tuple(out)


def prompts(renderer: Renderer, lengths: Sequence[int], seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(len(renderer.tokenizer), (n,), generator=generator).tolist() for n in lengths]


def spans(made: Sequence[Generation]) -> list[tuple[int, ...]]:
    return [generation.ids for generation in made]


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_batch_of_mixed_lengths_generates_what_each_would_alone_from_nothing(
    renderer: Renderer, architecture: str, sampling: Sampling
) -> None:
    model = make(architecture, renderer)
    engine = LocalEngine({"planner": model}, renderer)
    requests = [Request(n, "planner", ids) for n, ids in enumerate(prompts(renderer, [3, 200, 1, 64, 63, 17, 400]))]
    expected = [plain(model, renderer, request, sampling) for request in requests]
    assert spans(engine.generate(requests, sampling)) == expected
    assert len(set(expected)) > 3


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_what_is_generated_does_not_depend_on_the_rest_of_the_batch(renderer: Renderer, sampling: Sampling) -> None:
    model = make("qwen3", renderer)
    requests = [Request(n, "planner", ids) for n, ids in enumerate(prompts(renderer, [5, 90, 33, 70]))]
    alone = [LocalEngine({"planner": model}, renderer).generate([request], sampling)[0].ids for request in requests]
    batches = [*itertools.permutations(range(4), 2), *itertools.combinations(range(4), 3), (0, 1, 2, 3), (3, 1, 2, 0)]
    for chosen in batches:
        engine = LocalEngine({"planner": model}, renderer)
        made = engine.generate([requests[n] for n in chosen], sampling)
        assert spans(made) == [alone[n] for n in chosen]


def test_turns_of_several_voices_extend_the_cache_and_equal_a_computation_from_nothing(renderer: Renderer) -> None:
    models = {role: make("qwen3", renderer, seed) for seed, role in enumerate(ROLES)}
    engine = LocalEngine(models, renderer)
    transcripts = prompts(renderer, [40, 25, 70])
    outside = iter(prompts(renderer, [20, 3, 150, 8, 31, 64, 1, 90, 12], seed=2))
    seen = {(session, role): 0 for session in range(3) for role in ROLES}
    for role in ["planner", "caller", "planner", "planner", "summarizer", "caller", "planner"]:
        requests = [Request(session, role, list(ids)) for session, ids in enumerate(transcripts)]
        for request, made in zip(requests, engine.generate(requests, GREEDY), strict=True):
            assert made.ids == plain(models[role], renderer, request, GREEDY)
            prompt = len(request.ids) + len(renderer.header(role))
            assert made.cached_tokens == seen[request.session, role]
            assert made.cached_tokens + made.prefill_tokens == prompt
            seen[request.session, role] = prompt + len(made.ids) - 1
            piece = renderer.written(role, made.ids)
            transcripts[request.session] += [*piece.header, *piece.span, *piece.tail]
        transcripts[0] += next(outside, [])


def test_voices_that_share_a_model_share_its_cache(renderer: Renderer) -> None:
    model = make("llama", renderer)
    engine = LocalEngine(dict.fromkeys(ROLES, model), renderer)
    (ids,) = prompts(renderer, [100])
    (made,) = engine.generate([Request(0, "planner", ids)], GREEDY)
    piece = renderer.written("planner", made.ids)
    ids = [*ids, *piece.header, *piece.span, *piece.tail]
    request = Request(0, "caller", ids)
    (called,) = engine.generate([request], GREEDY)
    assert called.ids == plain(model, renderer, request, GREEDY)
    # the planner's last token and the caller's header are all that had not been computed
    assert called.prefill_tokens <= 3


def test_logits_equal_a_plain_forward_to_a_ten_thousandth(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    runner = engine._runners["planner"]
    logits: list[torch.Tensor] = []
    compute = runner._logits
    runner._logits = lambda hidden: logits.append(compute(hidden)) or logits[-1]  # type: ignore[method-assign]
    (ids,) = prompts(renderer, [300])
    engine.prefill([Request(0, "planner", ids[:130])])
    (made,) = engine.generate([Request(0, "planner", ids)], Sampling(max_new_tokens=8))
    with torch.no_grad():
        wanted = model(torch.tensor([[*ids, *renderer.header("planner"), *made.ids]])).logits[0, len(ids) :]
    got = torch.cat(logits)
    torch.testing.assert_close(got, wanted[: len(got)], rtol=0, atol=1e-4)


def test_a_history_that_changed_is_computed_again_from_where_it_differs(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    (ids,) = prompts(renderer, [80])
    engine.generate([Request(0, "planner", ids)], GREEDY)
    changed = [*ids[:50], ids[50] ^ 1, *ids[51:]]
    (made,) = engine.generate([Request(0, "planner", changed)], GREEDY)
    assert made.cached_tokens == 50
    assert made.ids == plain(model, renderer, Request(0, "planner", changed), GREEDY)


def test_the_same_request_again_gives_the_same_span(renderer: Renderer) -> None:
    engine = LocalEngine({"planner": make("qwen3", renderer)}, renderer)
    (ids,) = prompts(renderer, [80])
    first, second = (engine.generate([Request(0, "planner", ids)], WARM)[0] for _ in range(2))
    assert first.ids == second.ids
    assert second.prefill_tokens == 1


def test_one_session_may_be_asked_twice_in_one_batch(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    long, other = prompts(renderer, [150, 60])
    engine.generate([Request(0, "planner", long[:40])], GREEDY)
    requests = [
        Request(0, "planner", long),
        Request(0, "planner", long[:90]),
        Request(0, "planner", [*long[:30], *other]),
    ]
    for _ in range(3):
        made = engine.generate(requests, GREEDY)
        assert spans(made) == [plain(model, renderer, request, GREEDY) for request in requests]


def test_forks_share_what_was_computed_and_leave_each_other_alone(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    gold, other = prompts(renderer, [300, 40])
    assert engine.prefill([Request(0, "planner", gold)]) == [300]
    lengths = [10, 150, 299, 300]
    for child, length in enumerate(lengths, 1):
        engine.fork(0, child, length)
    requests = [Request(child, "planner", gold[:length]) for child, length in enumerate(lengths, 1)]
    # the parent goes another way, over what its children read
    requests.append(Request(0, "planner", [*gold[:100], *other]))
    for _ in range(2):
        made = engine.generate(requests, GREEDY)
        assert spans(made) == [plain(model, renderer, request, GREEDY) for request in requests]
    assert [generation.prefill_tokens for generation in made] == [1] * 5
    engine.forget([0, 1, 2])
    assert engine.cached(0, "planner") == 0
    assert engine.generate(requests[2:3], GREEDY)[0].ids == spans(made)[2]


def test_prefill_of_what_is_already_there_computes_nothing_and_loses_nothing(renderer: Renderer) -> None:
    engine = LocalEngine({"planner": make("qwen3", renderer)}, renderer)
    (gold,) = prompts(renderer, [300])
    engine.prefill([Request(0, "planner", gold)])
    assert engine.prefill([Request(0, "planner", gold[:200])]) == [0]
    assert engine.cached(0, "planner") == 300


def test_rows_that_end_early_leave_the_batch_and_the_others_go_on(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    most = [1, 2, 3, 30, 4, 5, 29, 1, 2, 30]
    ids = prompts(renderer, [30 + 7 * n for n in range(10)])
    requests = [Request(n, "planner", ids[n], most[n]) for n in range(10)]
    made = engine.generate(requests, WARM)
    assert spans(made) == [plain(model, renderer, request, WARM) for request in requests]
    again = [Request(n, "planner", [*ids[n], *renderer.header("planner"), *made[n].ids]) for n in range(10)]
    followed = engine.generate(again, GREEDY)
    assert spans(followed) == [plain(model, renderer, request, GREEDY) for request in again]
    assert all(generation.prefill_tokens == 2 for generation in followed)


@pytest.mark.parametrize("every", [2, 8, 100])
def test_reading_tokens_late_as_on_a_gpu_changes_nothing(renderer: Renderer, every: int) -> None:
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    engine._runners["planner"]._read_every = every
    ids = prompts(renderer, [30 + 7 * n for n in range(6)])
    requests = [Request(n, "planner", ids[n], [1, 2, 30, 9, 8, 17][n]) for n in range(6)]
    made = engine.generate(requests, WARM)
    assert spans(made) == [plain(model, renderer, request, WARM) for request in requests]
    again = [Request(n, "planner", [*ids[n], *renderer.header("planner"), *made[n].ids]) for n in range(6)]
    assert spans(engine.generate(again, GREEDY)) == [plain(model, renderer, request, GREEDY) for request in again]


def test_more_requests_than_memory_allows_run_one_batch_after_another(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    requests = [Request(n, "planner", ids) for n, ids in enumerate(prompts(renderer, [50, 60, 70, 80, 500]))]
    whole = LocalEngine({"planner": model}, renderer).generate(requests, GREEDY)
    tight = LocalEngine({"planner": model}, renderer, batch_bytes=1, cache_bytes=1, prefill_tokens=16)
    assert spans(tight.generate(requests, GREEDY)) == spans(whole)
    assert [tight.cached(n, "planner") for n in range(5)] == [0] * 5


def test_a_span_ends_at_the_end_token_or_is_cut_by_its_limit_or_the_context(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer, context=64)
    room, full, none = prompts(renderer, [30, 60, 64], seed=3)
    requests = [Request(0, "planner", room), Request(1, "planner", full), Request(2, "planner", none)]
    made = engine.generate(requests, Sampling(max_new_tokens=8))
    assert [len(generation.ids) for generation in made] == [8, 3, 0]
    assert not any(generation.finished for generation in made)
    end = made[0].ids[4]
    renderer_with_end = Renderer(renderer.tokenizer)
    object.__setattr__(renderer_with_end.markers, "end", end)
    (ended,) = LocalEngine({"planner": model}, renderer_with_end).generate(requests[:1], Sampling(max_new_tokens=8))
    assert ended.finished
    assert ended.ids == made[0].ids[: made[0].ids.index(end) + 1]


def test_a_chatml_tokenizer_with_its_longer_headers_works_too() -> None:
    renderer = Renderer(chatml())
    model = make("qwen3", renderer)
    engine = LocalEngine({"planner": model}, renderer)
    request = Request(0, "planner", prompts(renderer, [44])[0])
    assert engine.generate([request], GREEDY)[0].ids == plain(model, renderer, request, GREEDY)


def test_bfloat16_runs_and_keeps_its_cache_in_bfloat16(renderer: Renderer) -> None:
    engine = LocalEngine({"planner": make("qwen3", renderer)}, renderer, torch.bfloat16)
    (made,) = engine.generate([Request(0, "planner", prompts(renderer, [44])[0])], GREEDY)
    assert made.ids
    assert engine._runners["planner"].sessions[0].kv.dtype is torch.bfloat16


def test_sampling_follows_the_distribution_and_the_seed(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    (ids,) = prompts(renderer, [20])
    requests = [Request(n, "planner", ids, 1) for n in range(3000)]
    engine = LocalEngine({"planner": model}, renderer, cache_bytes=1)
    made = [generation.ids[0] for generation in engine.generate(requests, Sampling(temperature=0.7))]
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, *renderer.header("planner")]])).logits[0, -1]
    wanted = torch.softmax(logits / 0.7, 0)
    got = torch.bincount(torch.tensor(made), minlength=len(wanted)) / len(made)
    assert (got - wanted).abs().sum() < 0.35
    other = engine.generate(requests[:50], Sampling(temperature=0.7, seed=1))
    assert [generation.ids[0] for generation in other] != made[:50]


def test_top_p_never_takes_a_token_outside_the_nucleus(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    (ids,) = prompts(renderer, [20])
    engine = LocalEngine({"planner": model}, renderer)
    made = engine.generate([Request(n, "planner", ids, 1) for n in range(50)], Sampling(temperature=1.0, top_p=1e-6))
    greedy = engine.generate([Request(0, "planner", ids, 1)], GREEDY)
    assert {generation.ids for generation in made} == {greedy[0].ids}


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2)), "Mamba"),
        (
            lambda: MistralForCausalLM(MistralConfig(**SHAPE, vocab_size=400, sliding_window=128)),
            "sliding window of 128",
        ),
        (
            lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, vocab_size=400, head_dim=8, sliding_window=64)),
            "sliding window of 64",
        ),
    ],
    ids=["state space", "sliding window", "alternating"],
)
def test_an_architecture_it_cannot_serve_is_refused_in_words(renderer: Renderer, build, words: str) -> None:
    with pytest.raises(UserError, match=words):
        LocalEngine({"planner": build()}, renderer)


def test_learned_positions_and_a_window_as_wide_as_the_context_are_served(renderer: Renderer) -> None:
    torch.manual_seed(0)
    for model in (
        GPT2LMHeadModel(GPT2Config(vocab_size=len(renderer.tokenizer), n_embd=32, n_layer=2, n_head=2)).eval(),
        MistralForCausalLM(MistralConfig(**SHAPE, vocab_size=len(renderer.tokenizer), sliding_window=128)).eval(),
    ):
        engine = LocalEngine({"planner": model}, renderer, context=128)
        request = Request(0, "planner", prompts(renderer, [70])[0])
        assert engine.generate([request], GREEDY)[0].ids == plain(model, renderer, request, GREEDY)


def test_a_voice_without_a_model_and_a_context_beyond_the_model_are_user_errors(renderer: Renderer) -> None:
    model = make("qwen3", renderer)
    with pytest.raises(UserError, match="no model for the voice 'caller'"):
        LocalEngine({"planner": model}, renderer).generate([Request(0, "caller", [1])], GREEDY)
    with pytest.raises(UserError, match="1024 or less"):
        LocalEngine({"planner": model}, renderer, context=2048)
    with pytest.raises(UserError, match="temperature"):
        Sampling(temperature=-1)


def test_random_numbers_are_uniform_and_independent_of_order() -> None:
    draws = uniform(3, range(200), [10] * 200, 50)
    assert abs(draws.mean() - 0.5) < 0.02
    assert draws.min() >= 0
    assert draws.max() < 1
    assert (uniform(3, [7], [12], 5)[0] == draws[7, 2:7]).all()
    assert not (uniform(4, [7], [12], 5)[0] == draws[7, 2:7]).any()
