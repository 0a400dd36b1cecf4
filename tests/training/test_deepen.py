"""A deeper model computes what the shallow one did."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from alpha_umi.errors import UserError
from alpha_umi.run_directory import load_model
from alpha_umi.training.deepen import deepened
from alpha_umi.training.nano import new_model
from alpha_umi.training.recipe import NanoShape

SHAPE = NanoShape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64)


def qwen3() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=64, tie_word_embeddings=True,
    ))  # fmt: skip


@pytest.mark.parametrize("layers", [2, 3, 5, 8])
@pytest.mark.parametrize("make", [lambda: new_model(SHAPE, 300, 0), qwen3], ids=["llama", "qwen3"])
def test_a_deeper_model_computes_the_same_and_so_does_its_copy_on_disk(make, layers, tmp_path):
    ids = torch.arange(20)[None]
    model = make().eval()
    with torch.no_grad():
        before = model(ids).logits
        deeper = deepened(model, layers).eval()
        assert torch.allclose(deeper(ids).logits, before, atol=1e-6)
        deeper.save_pretrained(tmp_path)
        assert torch.allclose(load_model(str(tmp_path)).eval()(ids).logits, before, atol=1e-6)
    assert deeper.config.num_hidden_layers == layers


def test_new_layers_learn():
    model = deepened(new_model(SHAPE, 300, 0), 3)
    ids = torch.arange(20)[None]
    model(ids, labels=ids).loss.backward()
    grads = [layer.mlp.down_proj.weight.grad.abs().sum() for layer in model.model.layers]  # pyright: ignore
    assert all(grad > 0 for grad in grads)


def test_fewer_layers_and_other_architectures_are_refused():
    with pytest.raises(UserError, match="can't be made deeper by having 1"):
        deepened(new_model(SHAPE, 300, 0), 1)
    with pytest.raises(UserError, match="its layers aren't built as Llama's are"):
        deepened(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50)), 4)
