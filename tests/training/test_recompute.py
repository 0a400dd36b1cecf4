"""Gradient checkpointing: the same losses and gradients, with less kept for the backward pass."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from alpha_umi.adapters import RoleAdapters
from alpha_umi.compute import Precision
from alpha_umi.errors import UserError
from alpha_umi.training.batch import Row, collate
from alpha_umi.training.glpft import train
from alpha_umi.training.job import Progress
from alpha_umi.training.objective import Objective, RowObjective
from alpha_umi.training.shared_prefix import SpanObjective
from alpha_umi.transcript import Renderer
from tests.models import random_adapters
from tests.tokenizers import nano
from tests.training.test_glpft import Finished, Killed, Tiny, kill_at, last_losses
from tests.training.test_shared_prefix import MODELS, rows

KINDS = ["full", "lora", "alora"]


@cache
def short_rows() -> tuple[int, list[Row]]:
    """The size of a vocabulary, and the two shortest rows in it."""
    renderer = Renderer(nano(), "roles")
    return len(renderer.tokenizer), sorted(rows(renderer), key=lambda row: len(row.ids))[:2]


def objective(kind: str, family: str, recompute: bool, precision: Precision = "fp32") -> Objective:
    """One of the three kinds, of the same weights every time."""
    vocabulary, made = short_rows()
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[family](vocabulary).train()
    adapters: RoleAdapters | None = None if kind == "full" else random_adapters(model, 1, 0.1)
    if kind == "alora":
        assert adapters is not None
        return SpanObjective(adapters, lambda step: made, precision, recompute=recompute)
    return RowObjective(model, lambda step: collate(made), precision, adapters=adapters, recompute=recompute)


def learnt(one: Objective) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss and gradients of a step, and the bytes that were kept for the backward pass, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in one.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outcome = one(0)
    held = sum(kept.values())
    assert outcome.loss is not None
    outcome.loss.backward()
    return outcome.value, {n: p.grad for n, p in one.model.named_parameters() if p.grad is not None}, held


@pytest.mark.parametrize(("family", "precision"), [("llama", "fp32"), ("qwen3", "fp32"), ("llama", "bf16")])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_the_same_and_less_is_kept(kind: str, family: str, precision: Precision):
    loss, gradients, held = learnt(objective(kind, family, False, precision))
    again, theirs, less = learnt(objective(kind, family, True, precision))
    assert again == loss
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-5, atol=1e-7)
    assert less < 0.7 * held


def layers_note_their_precision(model: PreTrainedModel) -> list[torch.dtype]:
    seen: list[torch.dtype] = []

    def note(module: torch.nn.Module, given: Any, out: torch.Tensor) -> None:
        seen.append(out.dtype)

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(note)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_layers_compute_in_the_precision_that_was_asked_for_then_and_again(kind: str):
    dtypes: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
    for precision, dtype in dtypes.items():
        for recompute in (False, True):
            one = objective(kind, "llama", recompute, precision)
            seen = layers_note_their_precision(one.model)
            learnt(one)
            assert set(seen) == {dtype}


def test_the_probed_precision_holds_in_every_stage_and_variant(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("alpha_umi.training.start.probe_precision", lambda: "bf16")
    seen: dict[str, set[torch.dtype]] = {}
    now: set[torch.dtype] = set()

    def note(module: torch.nn.Module, given: Any, out: Any) -> None:
        if isinstance(module, torch.nn.Linear):
            now.add(out.dtype)

    def step(progress: Progress) -> None:
        seen[progress.name] = set(now)
        now.clear()

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        local = {"steps": 1, "variants": KINDS, "adapter": {"rank": 4}}
        info = train(
            tiny(precision="auto", global_stage={"steps": 1}, local_stage=local),
            step,
        )
    finally:
        hook.remove()
    assert info.precision == "bf16"
    assert len(seen) == 8
    assert all(dtypes == {torch.bfloat16} for dtypes in seen.values())


def test_a_recipe_asks_for_it_and_a_run_may_go_on_with_it(tiny: Tiny, tmp_path: Path, finished: Finished):
    local = {"steps": 2, "variants": ["full", "alora"], "adapter": {"rank": 4}}
    with pytest.raises(Killed):
        train(tiny(local_stage=local), kill_at("global", 2))
    train(tiny(local_stage=local, gradient_checkpointing=True))
    ours, theirs = last_losses(tmp_path / "run"), last_losses(finished(local_stage=local))
    assert ours.keys() == theirs.keys()
    for step, losses in theirs.items():
        assert ours[step] == pytest.approx(losses, rel=1e-4)


def test_a_model_that_cant_is_named():
    model: PreTrainedModel = MODELS["llama"](300)
    model.supports_gradient_checkpointing = False
    with pytest.raises(UserError, match=r"gradient_checkpointing: LlamaForCausalLM doesn't support it; leave it out"):
        RowObjective(model, lambda step: collate([]), recompute=True)
