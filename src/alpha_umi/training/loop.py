"""The training loop: one for the nano backbone, the global stage and the local stage in all its variants.

What is minimised is an `Objective`; its loss is a function of the step number and the weights alone, and a checkpoint
holds weights, optimizer state and the step, so a run that was killed goes on exactly where it would have been: the same
batches, the same losses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from alpha_umi.errors import UserError
from alpha_umi.training.checkpoint import Checkpoints
from alpha_umi.training.objective import Objective, Outcome
from alpha_umi.training.optimizer import Optimization, make_optimizers, rate, set_rate


@dataclass(frozen=True)
class StepReport:
    """What the progress bar and ``metrics.jsonl`` learn of a step."""

    step: int
    steps: int
    losses: dict[str, float]
    loss: float
    tokens: int
    loss_tokens: int
    seconds: float


@dataclass(frozen=True)
class Counts:
    """What training cost so far; FLOPs are 6 x parameters x tokens plus attention, forward and backward."""

    tokens: int = 0
    loss_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def add(self, outcome: Outcome, seconds: float) -> Counts:
        """The counts after one more step."""
        return Counts(
            self.tokens + outcome.tokens, self.loss_tokens + outcome.loss_tokens, self.flops + outcome.flops,
            self.seconds + seconds,
        )  # fmt: skip


class Trainer:
    """Trains for a number of steps, with checkpoints.

    Args:
        objective: What is minimised, over its model's weights that take gradients (in float32).
        settings: Optimizer and schedule.
        steps: How many steps in all.
        directory: Where checkpoints go; it's created, and emptied when the training is over.
        checkpoint_seconds: Time between checkpoints.
    """

    def __init__(
        self,
        objective: Objective,
        settings: Optimization,
        steps: int,
        directory: Path,
        checkpoint_seconds: float = 60.0,
    ) -> None:
        if steps < 1:
            raise UserError(f"training takes at least one step, not {steps}")
        self.objective, self.settings, self.steps = objective, settings, steps
        self.checkpoint_seconds = checkpoint_seconds
        self.model = objective.model
        self.optimizers = make_optimizers(self.model, settings)
        self.step = 0
        self.counts = Counts()
        self._checkpoints = Checkpoints(Path(directory))
        self._weights = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def train(self, on_step: Callable[[StepReport], None] = lambda report: None, stop_at: int | None = None) -> None:
        """Runs from the last checkpoint, if there is one, to the end (or to step ``stop_at``, without a checkpoint)."""
        self._resume()
        self.model.train()
        saved = time.monotonic()
        while self.step < min(self.steps, stop_at or self.steps):
            on_step(self._one_step())
            if time.monotonic() - saved > self.checkpoint_seconds and self.step < self.steps:
                self.save()
                saved = time.monotonic()
        self.model.eval()

    def _one_step(self) -> StepReport:
        started = time.perf_counter()
        set_rate(self.optimizers, rate(self.step, self.steps, self.settings))
        outcome = self.objective(self.step)
        if outcome.loss is not None:
            outcome.loss.backward()
        self.objective.processes.add_gradients(list(self._weights.values()))
        for weights in self.objective.clipped():
            torch.nn.utils.clip_grad_norm_(weights, self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        seconds = time.perf_counter() - started
        self.counts = self.counts.add(outcome, seconds)
        return StepReport(
            self.step, self.steps, outcome.losses, outcome.value, outcome.tokens, outcome.loss_tokens, seconds
        )

    def save(self) -> None:
        """Writes a checkpoint, if this is the main process; the one before it goes once the new one is complete."""
        if self.objective.processes.main:
            self._checkpoints.write(self.step, self._weights, self.optimizers, vars(self.counts))

    def discard_checkpoints(self) -> None:
        """Removes the checkpoints, once the trained weights are safe elsewhere."""
        self._checkpoints.discard()

    def _resume(self) -> None:
        found = None if self.step else self._checkpoints.restore(self._weights, self.optimizers)
        if found is not None:
            self.step, self.counts = found[0], Counts(**found[1])  # pyright: ignore[reportArgumentType]
