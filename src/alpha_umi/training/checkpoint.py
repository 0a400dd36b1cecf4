"""Checkpoints of a training: weights and optimizer state as safetensors, the rest as JSON; complete or not there.

A checkpoint belongs to the optimizers and weights it was written from; it says nothing about the batches, which follow
from the step number.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.trajectory import write_json

Weights = Mapping[str, torch.nn.Parameter]
"""What is trained, by name."""


class Checkpoints:
    """The checkpoints of one training; only the newest is kept.

    Args:
        directory: Where they go; it's created with the first one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(
        self, step: int, weights: Weights, optimizers: Sequence[torch.optim.Optimizer], counts: Mapping[str, float]
    ) -> None:
        """Writes a checkpoint; the one before it goes once the new one is complete.

        Raises:
            UserError: The disk is full, or the place can't be written to.
        """
        from safetensors.torch import save_file

        partial = self.directory / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            save_file({name: p.detach().contiguous() for name, p in weights.items()}, partial / "model.safetensors")
            tensors, plain = _pack([optimizer.state_dict()["state"] for optimizer in optimizers])
            save_file(tensors, partial / "optimizer.safetensors")
            write_json(partial / "state.json", {"step": step, "counts": dict(counts), "optimizer": plain})
            os.replace(partial, self.directory / f"checkpoint-{step:07d}")
        except OSError as error:
            raise UserError(f"can't write a checkpoint to {self.directory}: {error.strerror or error}") from error
        for old in self._all()[:-1]:
            shutil.rmtree(old)

    def restore(
        self, weights: Weights, optimizers: Sequence[torch.optim.Optimizer]
    ) -> tuple[int, dict[str, float]] | None:
        """Puts the newest checkpoint into weights and optimizers.

        Returns:
            Its step and counts; None if there is no checkpoint.

        Raises:
            RunDirectoryError: It is damaged, or was made for other weights.
        """
        from safetensors import SafetensorError

        found = self._all()
        if not found:
            return None
        try:
            return _restore(found[-1], weights, optimizers)
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
            raise RunDirectoryError(
                f"the checkpoint {found[-1]} can't be read ({error}); remove it to start again"
            ) from error

    def discard(self) -> None:
        """Removes them all."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(self.directory.glob("checkpoint-*"))


def _restore(
    checkpoint: Path, weights: Weights, optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[int, dict[str, float]]:
    from safetensors.torch import load_file

    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    saved = load_file(checkpoint / "model.safetensors")
    tensors = load_file(checkpoint / "optimizer.safetensors")
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(saved[name])
    for optimizer, packed in zip(optimizers, _unpack(tensors, state["optimizer"]), strict=True):
        optimizer.load_state_dict({"state": packed, "param_groups": optimizer.state_dict()["param_groups"]})
    return state["step"], state["counts"]


def _pack(states: list[dict[int, dict[str, Any]]]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Optimizer states as one flat dictionary of tensors and one of plain values."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, Any] = {}
    for number, state in enumerate(states):
        for index, values in state.items():
            for key, value in values.items():
                name = f"{number}/{index}/{key}"
                if isinstance(value, torch.Tensor):
                    tensors[name] = value.detach().contiguous()
                else:
                    plain[name] = value
    return tensors, plain


def _unpack(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> list[dict[int, dict[str, Any]]]:
    states: dict[int, dict[int, dict[str, Any]]] = {}
    for name, value in [*tensors.items(), *plain.items()]:
        number, index, key = name.split("/")
        states.setdefault(int(number), {}).setdefault(int(index), {})[key] = value
    return [states[number] for number in sorted(states)]
