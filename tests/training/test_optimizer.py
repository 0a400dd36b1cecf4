"""The schedule, and which optimizer updates what."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.training.nano import new_model
from alpha_umi.training.optimizer import Optimization, make_optimizers, rate, set_rate
from alpha_umi.training.recipe import NanoShape

SHAPE = NanoShape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=48, positions=256)
SHARES = st.floats(0, 1)


def test_the_rate_rises_stays_and_falls():
    settings = Optimization(warmup=0.1, decay=0.4, final=0.1)
    curve = [rate(step, 100, settings) for step in range(100)]
    assert curve[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert curve[10:60] == [1.0] * 50
    assert all(a > b for a, b in itertools.pairwise(curve[60:]))
    assert curve[-1] == pytest.approx(0.1 + 0.9 / 40)


@given(st.integers(1, 3000), SHARES, SHARES, SHARES, st.data())
def test_the_rate_never_leaves_its_bounds(steps: int, warmup: float, decay: float, final: float, data: st.DataObject):
    settings = Optimization(warmup=warmup, decay=decay, final=final)
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < rate(step, steps, settings) <= 1
    if step + 1 >= warmup * steps + 1:
        assert rate(step, steps, settings) >= final


@given(st.integers(2, 3000), SHARES, SHARES)
def test_the_rate_falls_after_the_warm_up_and_never_rises_again(steps: int, decay: float, final: float):
    settings = Optimization(warmup=0, decay=decay, final=final)
    curve = [rate(step, steps, settings) for step in range(steps)]
    assert all(a >= b for a, b in itertools.pairwise(curve))


def owners(settings: Optimization, model: torch.nn.Module) -> dict[str, list[str]]:
    """The kinds of optimizer that update each parameter."""
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for optimizer in make_optimizers(model, settings):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                found[names[id(parameter)]].append(type(optimizer).__name__)
    return found


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest():
    model = new_model(SHAPE, 300, 0)
    for name, kinds in owners(Optimization(optimizer="muon"), model).items():
        inside = ".layers." in name and "norm" not in name
        assert kinds == (["Muon"] if inside else ["AdamW"]), name


def test_an_untied_head_is_no_matrix_of_a_layer():
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False, attention_bias=True))  # fmt: skip
    found = owners(Optimization(optimizer="muon"), model)
    assert found["lm_head.weight"] == found["model.embed_tokens.weight"] == ["AdamW"]
    assert found["model.layers.0.self_attn.q_proj.bias"] == ["AdamW"]


def test_adamw_alone_takes_everything():
    assert set(map(tuple, owners(Optimization(optimizer="adamw"), new_model(SHAPE, 300, 0)).values())) == {("AdamW",)}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_frozen_parameter_has_no_optimizer_and_every_other_has_one(optimizer: str):
    model = new_model(SHAPE, 300, 0)
    frozen = {"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    found = owners(Optimization.model_validate({"optimizer": optimizer}), model)
    assert {name for name, kinds in found.items() if not kinds} == frozen
    assert all(len(kinds) == 1 for name, kinds in found.items() if name not in frozen)


def test_each_group_keeps_its_own_peak():
    settings = Optimization(optimizer="muon", learning_rate=0.01, other_learning_rate=0.002)
    optimizers = make_optimizers(new_model(SHAPE, 300, 0), settings)
    for share in (0.5, 0.1):
        set_rate(optimizers, share)
        assert [group["lr"] for o in optimizers for group in o.param_groups] == [0.01 * share, 0.002 * share]


def test_only_matrices_decay():
    settings = Optimization(optimizer="muon", weight_decay=0.3)
    decays = {
        type(o).__name__: o.param_groups[0]["weight_decay"] for o in make_optimizers(new_model(SHAPE, 300, 0), settings)
    }
    assert decays == {"Muon": 0.3, "AdamW": 0.0}
