"""How large a study is: backbones, data, budgets and instructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alpha_umi.errors import UserError
from alpha_umi.evaluation.toolworld_suite import Suite
from alpha_umi.training.recipe import NANO_BASE

Backbone = str | dict[str, Any]
"""As in a recipe."""


@dataclass(frozen=True)
class Scale:
    """One size of the whole study.

    Attributes:
        name: As on the command line.
        backbones: By the name of their size; the first is the one that every system is trained from.
        tripled: A backbone with about three times the first one's parameters.
        trajectories: Seen by each stage, and by each role of a local stage.
        common: Recipe keys that every run has.
        stage: Optimizer and schedule of a stage that starts from the base model.
        local: The same of one that starts from a global stage.
        adapters: The same of ``lora`` and ``alora``.
        suite: Instructions to evaluate on.
        concurrency: Episodes at one time.
    """

    name: str
    backbones: Mapping[str, Backbone]
    tripled: Backbone
    trajectories: int
    common: Mapping[str, Any]
    stage: Mapping[str, Any]
    local: Mapping[str, Any]
    adapters: Mapping[str, Any]
    suite: Suite
    concurrency: int = 64
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The name of the first size."""
        return next(iter(self.backbones))


def _muon(rate: float, decay: float, final: float) -> dict[str, Any]:
    return {
        "optimizer": "muon", "learning_rate": rate, "other_learning_rate": rate * 0.6, "decay": decay, "final": final,
    }  # fmt: skip


def _adamw(rate: float) -> dict[str, Any]:
    return {"optimizer": "adamw", "learning_rate": rate, "decay": 0.9, "final": 0.1}


_TINY = {"hidden": 64, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 128}


def _qwen(name: str, sizes: Mapping[str, str], tripled: str) -> Scale:
    return Scale(
        name, sizes, tripled, trajectories=20_000,
        common={"batch_tokens": 32_768, "max_length": 4096, "precision": "bf16", "gradient_checkpointing": True},
        stage=_adamw(2e-5), local=_adamw(1e-5), adapters=_adamw(2e-4), suite=Suite.default(),
        data={"reword": 0.3},
    )  # fmt: skip


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(
        "smoke", {"tiny": _TINY, "tiny-deeper": _TINY | {"layers": 3}}, _TINY | {"layers": 6}, trajectories=16,
        common={"batch_tokens": 4096, "precision": "fp32"}, stage=_muon(2e-3, 0.5, 0.1), local=_muon(5e-4, 0.9, 0.02),
        adapters=_adamw(2e-3), suite=Suite.default(1),
    ),
    "nano": Scale(
        "nano", {"nano": NANO_BASE, "nano-deeper": {"base": NANO_BASE, "layers": 8}},
        {"base": NANO_BASE, "layers": 15}, trajectories=1600, common={"batch_tokens": 3072},
        stage=_muon(2e-3, 0.5, 0.1), local=_muon(5e-4, 0.9, 0.02), adapters=_adamw(2e-3), suite=Suite.default(60),
        data={"instructions": 4, "reword": 0.7},
    ),
    "qwen3-0.6b": _qwen(
        "qwen3-0.6b", {"0.6b": "Qwen/Qwen3-0.6B", "1.7b": "Qwen/Qwen3-1.7B"}, "Qwen/Qwen3-1.7B"
    ),
    "qwen3-1.7b": _qwen("qwen3-1.7b", {"1.7b": "Qwen/Qwen3-1.7B", "4b": "Qwen/Qwen3-4B"}, "Qwen/Qwen3-4B"),
    "qwen3-4b": _qwen("qwen3-4b", {"4b": "Qwen/Qwen3-4B", "8b": "Qwen/Qwen3-8B"}, "Qwen/Qwen3-14B"),
}  # fmt: skip


def scale_of(name: str) -> Scale:
    """The scale with this name.

    Raises:
        UserError: There is none.
    """
    if name not in SCALES:
        raise UserError(f"--scale {name}: there is no such scale; there are {', '.join(SCALES)}")
    return SCALES[name]
