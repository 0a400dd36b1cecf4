"""The training loop: one for the nano backbone, the global stage and the local stage in all its variants.

What is minimised is an `Objective`; its loss is a function of the step number and the weights alone, and a checkpoint
holds weights, optimizer state and the step, so a run that was killed goes on exactly where it would have been: the same
batches, the same losses.

Shapes: B rows, T tokens a row (right-padded, a multiple of 64), N tokens in the loss, D width, V vocabulary.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.nn.functional as F

from alpha_umi.compute import Precision, autocast, device
from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.training.attention import blockwise
from alpha_umi.training.optimizer import Optimization, make_optimizers, rate, set_rate
from alpha_umi.trajectory import write_json
from alpha_umi.transcript import IGNORED, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpha_umi.adapters import RoleAdapters

GROUPS: tuple[str, ...] = ("planner", "caller", "summarizer", "assistant", "text")
"""Whose token a loss token is; losses are reported per group."""

_PAD_TO = 64
_HEAD_ROWS = 256
_PLAIN_HEADS = ("Llama", "Qwen2", "Qwen3", "Mistral", "SmolLM3", "Phi3", "Olmo2")
"""Architectures whose logits are the head times the last hidden state, so that only loss tokens need logits."""


@dataclass(frozen=True)
class Row:
    """One sequence of T tokens: ids, labels at the same offsets, and the group and weight of each loss token.

    Attributes:
        segments: What the labels come from, where they come from a transcript.
    """

    ids: Sequence[int]
    labels: Sequence[int]
    group: Sequence[int]
    weight: Sequence[float] | None = None
    segments: Sequence[Segment] = ()


@dataclass(frozen=True)
class Batch:
    """Rows padded together.

    Attributes:
        ids: int64 [B, T].
        select: bool [B, T], True where the *next* token is in the loss.
        targets: int64 [N], those next tokens.
        group: int64 [N], index into `GROUPS`.
        weight: float32 [N]; the loss is their weighted mean.
    """

    ids: torch.Tensor
    select: torch.Tensor
    targets: torch.Tensor
    group: torch.Tensor
    weight: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens forwarded, padding included."""
        return self.ids.numel()


def collate(rows: Sequence[Row], pad_to: int = _PAD_TO) -> Batch:
    """Pads rows on the right to one multiple of ``pad_to`` (few shapes: CPU kernels are compiled per shape)."""
    width = -(-max(len(row.ids) for row in rows) // pad_to) * pad_to
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    group = torch.zeros(len(rows), width, dtype=torch.long)
    weight = torch.ones(len(rows), width)
    for b, row in enumerate(rows):
        n = len(row.ids)
        ids[b, :n] = torch.tensor(row.ids)
        labels[b, : n - 1] = torch.tensor(row.labels[1:])  # the label of position t is token t + 1
        group[b, : n - 1] = torch.tensor(row.group[1:])
        if row.weight is not None:
            weight[b, : n - 1] = torch.tensor(row.weight[1:])
    select = labels != IGNORED
    return Batch(ids, select, labels[select], group[select], weight[select])


class TokenLosses(torch.nn.Module):
    """A causal language model as a function from a batch to the cross entropy of each loss token (float32 [N])."""

    def __init__(self, model: PreTrainedModel, compile_body: bool = False) -> None:
        super().__init__()
        self.model = model
        self.plain = type(model).__name__.removesuffix("ForCausalLM") in _PLAIN_HEADS
        body = getattr(model, model.base_model_prefix)
        self.body: Callable[..., Any] = torch.compile(body) if compile_body else body

    def forward(self, ids: torch.Tensor, select: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Runs the model without a mask: rows are padded on the right, and attention is causal."""
        if self.plain:
            hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state  # [B, T, D]
            head = cast("torch.nn.Linear", self.model.get_output_embeddings())
            spoken = hidden[select]  # [N, D]
            spare = -len(spoken) % _HEAD_ROWS  # a multiple, so that the head's kernel is compiled for few shapes
            logits = head(F.pad(spoken, (0, 0, 0, spare)))[: len(spoken)]  # [N, V]
        else:
            logits = self.model(input_ids=ids, use_cache=False).logits[select]
        return F.cross_entropy(logits.float(), targets, reduction="none")


class BatchSource(Protocol):
    """Gives the batch of a step; the same step always gives the same batch."""

    def __call__(self, step: int) -> Batch:
        """The batch of step ``step``, counted from 0."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What an objective gives for a step.

    Attributes:
        loss: A scalar to be minimised, with its graph.
        losses: Mean loss of each group of loss tokens.
        tokens: Forwarded, padding included.
        loss_tokens: In the loss.
        flops: Of forward and backward.
    """

    loss: torch.Tensor
    losses: dict[str, float]
    tokens: int
    loss_tokens: int
    flops: float


class Objective(Protocol):
    """What a `Trainer` minimises.

    Attributes:
        model: Holds the weights that take gradients; they are what a checkpoint keeps.
        adapters: Where it is adapters that are trained.
    """

    model: PreTrainedModel
    adapters: RoleAdapters | None

    def __call__(self, step: int) -> Outcome:
        """The loss of step ``step``, counted from 0."""
        ...

    def clipped(self) -> list[list[torch.nn.Parameter]]:
        """The weights whose gradients are clipped together."""
        ...


class RowObjective:
    """The weighted mean cross entropy of whole rows.

    Args:
        model: A causal language model; moved to the GPU if there is one.
        batches: The batch of each step.
        precision: ``bf16`` runs the forward pass under autocast.
        compile_body: Compile the layers with torch.compile (needs a C++ compiler; one shape is best).
        adapters: Adapters of one role on the model, for all tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batches: BatchSource,
        precision: Precision = "fp32",
        compile_body: bool = False,
        adapters: RoleAdapters | None = None,
    ) -> None:
        self.model, self.batches, self.adapters = model, batches, adapters
        self.precision: Precision = precision
        torch.nn.Module.to(model, device())
        self._losses = TokenLosses(model, compile_body)

    def __call__(self, step: int) -> Outcome:
        """The loss of the step's batch."""
        batch, on = self.batches(step), device()
        routed = self.adapters.routed(self.adapters.roles[0]) if self.adapters else nullcontext()
        with routed, blockwise(self.model), autocast(self.precision):
            losses = self._losses(batch.ids.to(on), batch.select.to(on), batch.targets.to(on))
        weight = batch.weight.to(on)
        loss = (losses * weight).sum() / weight.sum()
        (rows, width), n = batch.ids.shape, len(batch.targets)
        by_group = mean_losses(losses.detach().cpu(), batch.group)
        return Outcome(loss, by_group, batch.tokens, n, training_flops(self.model, rows, width, n))

    def clipped(self) -> list[list[torch.nn.Parameter]]:
        """All weights together."""
        return [[p for p in self.model.parameters() if p.requires_grad]]


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


def training_flops(model: PreTrainedModel, rows: int, width: int, loss_tokens: int) -> float:
    """FLOPs of a forward and backward: 6 a weight and token, the head on loss tokens only, attention 6·L·D·T² a row."""
    config: Any = model.config
    embedding = embedding_matrix(model)
    head = head_matrix(model)
    body = sum(p.numel() for p in model.parameters()) - embedding.numel() - (0 if head is embedding else head.numel())
    attention = 6 * config.num_hidden_layers * config.hidden_size * width * width * rows
    return 6.0 * body * rows * width + 6.0 * head.numel() * loss_tokens + attention


def embedding_matrix(model: PreTrainedModel) -> torch.Tensor:
    """The input embeddings, [V, D]."""
    return cast("torch.nn.Embedding", model.get_input_embeddings()).weight


def head_matrix(model: PreTrainedModel) -> torch.Tensor:
    """The output head, [V, D]; the very embeddings where they are tied."""
    return cast("torch.nn.Linear", model.get_output_embeddings()).weight


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
        self.directory, self.checkpoint_seconds = Path(directory), checkpoint_seconds
        self.model = objective.model
        self.optimizers = make_optimizers(self.model, settings)
        self.step = 0
        self.counts = Counts()

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
        outcome.loss.backward()
        for weights in self.objective.clipped():
            torch.nn.utils.clip_grad_norm_(weights, self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        seconds = time.perf_counter() - started
        self.counts = self.counts.add(outcome, seconds)
        return StepReport(
            self.step, self.steps, outcome.losses, float(outcome.loss.detach()), outcome.tokens, outcome.loss_tokens,
            seconds,
        )  # fmt: skip

    def _weights(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    # -- checkpoints: weights and optimizer state as safetensors, everything else as JSON

    def save(self) -> None:
        """Writes a checkpoint; the one before it goes once the new one is complete."""
        from safetensors.torch import save_file

        final = self.directory / f"checkpoint-{self.step:07d}"
        partial = self.directory / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            save_file(
                {name: p.detach().contiguous() for name, p in self._weights().items()},
                partial / "model.safetensors",
            )
            tensors, plain = _pack([optimizer.state_dict()["state"] for optimizer in self.optimizers])
            save_file(tensors, partial / "optimizer.safetensors")
            write_json(partial / "state.json", {"step": self.step, "counts": vars(self.counts), "optimizer": plain})
            os.replace(partial, final)
        except OSError as error:
            raise UserError(f"can't write a checkpoint to {self.directory}: {error.strerror or error}") from error
        for old in self._checkpoints()[:-1]:
            shutil.rmtree(old)

    def discard_checkpoints(self) -> None:
        """Removes the checkpoints, once the trained weights are safe elsewhere."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.directory.glob("checkpoint-*"))

    def _resume(self) -> None:
        from safetensors import SafetensorError

        found = self._checkpoints()
        if not found or self.step:
            return
        try:
            self._restore(found[-1])
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
            raise RunDirectoryError(
                f"the checkpoint {found[-1]} can't be read ({error}); remove it to start again"
            ) from error

    def _restore(self, checkpoint: Path) -> None:
        from safetensors.torch import load_file

        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        weights = load_file(checkpoint / "model.safetensors")
        tensors = load_file(checkpoint / "optimizer.safetensors")
        with torch.no_grad():
            for name, parameter in self._weights().items():
                parameter.copy_(weights[name])
        for optimizer, packed in zip(self.optimizers, _unpack(tensors, state["optimizer"]), strict=True):
            optimizer.load_state_dict({"state": packed, "param_groups": optimizer.state_dict()["param_groups"]})
        self.step = state["step"]
        self.counts = Counts(**state["counts"])


def mean_losses(losses: torch.Tensor, group: torch.Tensor) -> dict[str, float]:
    """Mean loss of each group that is present."""
    sums = torch.zeros(len(GROUPS)).index_add_(0, group, losses.float())
    counts = torch.bincount(group, minlength=len(GROUPS))
    return {name: float(sums[i] / counts[i]) for i, name in enumerate(GROUPS) if counts[i]}


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
