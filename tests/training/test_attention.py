"""Block-wise attention equals torch's own, forward and backward, and steps aside where it can't."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from alpha_umi.training import attention
from alpha_umi.training.attention import block_attention, blockwise

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip

Qkv = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=True
    )


def drawn(seed: int, rows: int, heads: int, shared: int, length: int, width: int) -> Qkv:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, heads, length, width)] + [(rows, shared, length, width)] * 2
    query, key, value = (torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes)
    return query, key, value


@given(
    st.integers(0, 99), st.integers(1, 3), st.sampled_from([(1, 1), (4, 2), (6, 2), (4, 4)]),
    st.sampled_from([2, 64, 127, 128, 129, 300]), st.sampled_from([4, 16]),
)  # fmt: skip
def test_values_and_gradients_are_those_of_the_fused_kernel(
    seed: int, rows: int, heads: tuple[int, int], length: int, width: int
):
    tensors = drawn(seed, rows, *heads, length, width)
    weight = torch.randn(rows, heads[0], length, width, generator=torch.Generator().manual_seed(seed + 1))
    ours, theirs = (f(*tensors, 0.3) for f in (block_attention, fused))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for mine, yours in zip(
        torch.autograd.grad((ours * weight).sum(), tensors),
        torch.autograd.grad((theirs * weight).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(mine, yours, rtol=1e-4, atol=1e-4)


def test_under_autocast_it_computes_in_bf16_and_stays_near():
    tensors = drawn(3, 2, 4, 2, 200, 16)
    with torch.autocast("cpu", torch.bfloat16):
        ours = block_attention(*tensors, 0.25)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, fused(*tensors, 0.25), rtol=0.05, atol=0.05)


def losses_and_gradients(model: PreTrainedModel, ids: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    out = model(input_ids=ids, labels=ids, use_cache=False)
    out.loss.backward()
    return [out.loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def test_a_model_trains_alike_and_gets_its_own_attention_back():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    ids = torch.randint(64, (3, 150))
    plain = losses_and_gradients(model, ids)
    with blockwise(model):
        assert model.config._attn_implementation != "sdpa"
        ours = losses_and_gradients(model, ids)
    assert model.config._attn_implementation == "sdpa"
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_sliding_window_is_left_to_the_fused_kernel():
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16))
    ids = torch.randint(64, (2, 80))
    plain = losses_and_gradients(model, ids)
    with blockwise(model):
        ours = losses_and_gradients(model, ids)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_padding_mask_and_eager_attention_are_respected():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    ids = torch.randint(64, (2, 20))
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    plain = model(input_ids=ids, attention_mask=mask).logits
    with blockwise(model):
        torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, plain)
    model.set_attn_implementation("eager")
    with blockwise(model):
        assert model.config._attn_implementation == "eager"


def test_a_row_too_long_to_keep_its_weights_goes_to_the_fused_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "_LONGEST", 16)
    monkeypatch.setattr(attention, "block_attention", lambda *args: pytest.fail("a long row was kept"))
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    with blockwise(model):
        assert losses_and_gradients(model, torch.randint(64, (1, 40)))[0] > 0
