"""The shared-prefix local stage: the same loss and gradients as one sample a step through PEFT's activated LoRA."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alpha_umi.adapters import AdapterIdentity, RoleAdapters, save_adapter
from alpha_umi.errors import UserError
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.training.batch import Row
from alpha_umi.training.shared_prefix import SpanLosses, SpanObjective
from alpha_umi.training.span_batch import collate_spans
from alpha_umi.training.targets import make_row
from alpha_umi.trajectory import Trajectory
from alpha_umi.transcript import ROLES, Renderer, Role
from tests.models import random_adapters
from tests.tokenizers import chatml, nano

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
MODELS = {
    "llama": lambda v: LlamaForCausalLM(LlamaConfig(vocab_size=v, **SIZES)),
    "qwen3": lambda v: Qwen3ForCausalLM(Qwen3Config(vocab_size=v, **SIZES)),
    "olmo2": lambda v: Olmo2ForCausalLM(Olmo2Config(vocab_size=v, **SIZES)),
}


@cache
def various() -> list[Trajectory]:
    """The shortest of each kind: some with several steps, one with parallel calls, one that is asked back."""
    kinds = ("chain", "parallel", "single", "missing", "impossible")
    solved = [solve(task) for task in make_tasks("train", 150, seed=3) if task.kind in kinds]
    of_kind = {kind: [one for one in solved if one.extra["toolworld"]["kind"] == kind] for kind in kinds}
    return [min(of_kind[kind], key=lambda one: len(one.to_json())) for kind in kinds]


def rows(renderer: Renderer, roles: Sequence[Role] = ROLES) -> list[Row]:
    """The rows of those in which one of the roles speaks."""
    made = [row for trajectory in various() if (row := make_row(renderer.render(trajectory), roles))]
    assert len(made) >= 3
    return made


def with_adapters(model: PreTrainedModel) -> RoleAdapters:
    """Adapters far from zero, small enough for float32 sums to agree."""
    return random_adapters(model, 1, 0.1)


def naive(
    base: PreTrainedModel, folder: Path, role: Role, made: list[Row]
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Losses of every step, and gradients of their sum, one sample a step through PEFT."""
    peft = PeftModel.from_pretrained(base, str(folder / role), is_trainable=True)
    losses: list[torch.Tensor] = []
    for row in made:
        for segment in (one for one in row.segments if one.kind == role):
            ids = torch.tensor([row.ids[: segment.span_stop]])
            logits = peft(input_ids=ids[:, :-1], use_cache=False).logits[0, segment.span_start - 1 :]
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, segment.span_start :], reduction="none"))
    torch.cat(losses).sum().backward()
    gradients = {
        name.replace(".default", ""): p.grad
        for name, p in peft.named_parameters()
        if p.requires_grad and p.grad is not None
    }
    return [loss.detach() for loss in losses], gradients


@pytest.mark.parametrize(
    ("family", "markers"), [("llama", "one token a header"), ("qwen3", "several"), ("olmo2", "one token a header")]
)
def test_loss_and_gradients_are_those_of_one_sample_a_step(family: str, markers: str, tmp_path: Path):
    tokenizer = nano() if markers == "one token a header" else chatml()
    renderer = Renderer(tokenizer, "roles")
    made = rows(renderer)
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[family](len(tokenizer))
    bare = copy.deepcopy(model.state_dict())
    adapters = with_adapters(model)
    for role in ROLES:
        identity = AdapterIdentity(role=role, variant="alora", backbone="b", renderer="r")
        save_adapter(tmp_path / role, adapters, identity, renderer.markers.headers[role], "")
    batch = collate_spans(made)
    losses = SpanLosses(adapters)(batch)
    losses.sum().backward()
    owners = batch.owner[batch.select]
    for number, role in enumerate(ROLES):
        base: PreTrainedModel = MODELS[family](len(tokenizer))
        base.load_state_dict(bare)
        theirs, gradients = naive(base, tmp_path, role, made)
        torch.testing.assert_close(losses[owners == number].detach(), torch.cat(theirs), rtol=1e-5, atol=1e-5)
        ours = adapters.named(role)
        assert ours.keys() == gradients.keys()
        for name, gradient in gradients.items():
            mine = ours[name].grad
            assert mine is not None
            assert (mine - gradient).norm() / gradient.norm() < 1e-5, name


def test_a_row_counts_the_same_in_any_batch():
    renderer = Renderer(nano(), "roles")
    made = rows(renderer)
    torch.manual_seed(0)
    losses = SpanLosses(with_adapters(MODELS["llama"](len(renderer.tokenizer))))
    together = losses(collate_spans(made))
    alone = [losses(collate_spans([row], pad_to=1)) for row in made]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_only_the_roles_that_are_asked_for_learn():
    renderer = Renderer(nano(), "roles")
    model = MODELS["llama"](len(renderer.tokenizer))
    adapters = with_adapters(model)
    SpanLosses(adapters)(collate_spans(rows(renderer, ["caller"]))).sum().backward()
    assert all(p.grad is None for role in ("planner", "summarizer") for p in adapters.named(role).values())
    assert all(p.grad is not None for p in adapters.named("caller").values())
    assert all(p.grad is None for name, p in model.named_parameters() if ".down." not in name and ".up." not in name)


def test_a_step_reports_each_roles_mean_and_their_sum_is_minimised():
    renderer = Renderer(nano(), "roles")
    made = rows(renderer)
    torch.manual_seed(0)
    adapters = with_adapters(MODELS["llama"](len(renderer.tokenizer)))
    outcome = SpanObjective(adapters, lambda step: made)(0)
    batch = collate_spans(made)
    losses, owners = SpanLosses(adapters)(batch).detach(), batch.owner[batch.select]
    for number, role in enumerate(ROLES):
        assert outcome.losses[role] == pytest.approx(losses[owners == number].mean().item(), rel=1e-5)
    assert outcome.value == pytest.approx(sum(outcome.losses.values()), rel=1e-5)
    assert (outcome.tokens, outcome.loss_tokens) == (batch.tokens, len(batch.targets))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: MistralForCausalLM(MistralConfig(vocab_size=50, sliding_window=16, **SIZES)), "sliding window"),
        (
            lambda: LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=50, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, **SIZES
                )
            ),
            "depend on the length",
        ),
        (lambda: LlamaForCausalLM(LlamaConfig(vocab_size=50, attention_dropout=0.1, **SIZES)), "dropout"),
    ],
)
def test_a_backbone_that_cant_share_a_prefix_is_refused_and_lora_named(
    model: Callable[[], PreTrainedModel], reason: str
):
    with pytest.raises(UserError, match=f"{reason}.*take the variant lora"):
        SpanLosses(with_adapters(model()))
