"""What training minimises: the cross entropy of the loss tokens of whole rows, and what a step of it costs.

Shapes: B rows, T tokens a row, N tokens in the loss, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.nn.functional as F

from alpha_umi.compute import Precision, autocast, device
from alpha_umi.training.attention import blockwise
from alpha_umi.training.batch import GROUPS, Batch
from alpha_umi.training.processes import ALONE, Processes
from alpha_umi.training.recompute import recompute_layers
from alpha_umi.training.shards import Shards

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpha_umi.adapters import RoleAdapters

_HEAD_ROWS = 256
_PLAIN_HEADS = ("Llama", "Qwen2", "Qwen3", "Mistral", "SmolLM3", "Phi3", "Olmo2")
"""Architectures whose logits are the head times the last hidden state, so that only loss tokens need logits."""


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
class Sums:
    """Sums over the loss tokens of a batch, every process's share of it included.

    Attributes:
        losses: Of each group.
        counts: How many tokens of each group there are.
        weighted: Losses times weights, of all groups.
        weight: Of all tokens.
        tokens: Forwarded, padding included.
        flops: Of forward and backward.
    """

    losses: list[float]
    counts: list[float]
    weighted: float
    weight: float
    tokens: int
    flops: float

    @property
    def means(self) -> dict[str, float]:
        """Mean loss of each group that is present."""
        return {name: self.losses[i] / self.counts[i] for i, name in enumerate(GROUPS) if self.counts[i]}


def add_up(
    processes: Processes, losses: torch.Tensor, group: torch.Tensor, weight: torch.Tensor, tokens: int, flops: float
) -> Sums:
    """Adds up a batch's losses (float32 [N]), tokens and FLOPs over all processes, in one message."""
    own, weight = losses.detach().double().cpu(), weight.double()
    groups = torch.zeros(2, len(GROUPS), dtype=torch.float64)
    groups[0].index_add_(0, group, own)
    groups[1].index_add_(0, group, torch.ones_like(own))
    rest = torch.tensor([float((own * weight).sum()), float(weight.sum()), tokens, flops], dtype=torch.float64)
    summed = processes.total(torch.cat([groups.flatten(), rest])).tolist()
    weighted, total, tokens, flops = summed[2 * len(GROUPS) :]
    return Sums(summed[: len(GROUPS)], summed[len(GROUPS) : 2 * len(GROUPS)], weighted, total, int(tokens), flops)


@dataclass(frozen=True)
class Outcome:
    """What an objective gives for a step.

    Attributes:
        loss: This process's part of the loss: a scalar with its graph, or None where it has no rows of this batch.
        value: The loss of the whole batch.
        losses: Mean loss of each group of loss tokens.
        tokens: Forwarded, padding included.
        loss_tokens: In the loss.
        flops: Of forward and backward.
    """

    loss: torch.Tensor | None
    value: float
    losses: dict[str, float]
    tokens: int
    loss_tokens: int
    flops: float

    @classmethod
    def of(cls, loss: torch.Tensor | None, value: float, sums: Sums) -> Outcome:
        """With the means and costs of these sums."""
        return cls(loss, value, sums.means, sums.tokens, int(sum(sums.counts)), sums.flops)


class Objective(Protocol):
    """What a `Trainer` minimises.

    Attributes:
        model: Holds the weights that take gradients; they are what a checkpoint keeps.
        adapters: Where it is adapters that are trained.
        processes: Who else computes a share of each step.
    """

    model: PreTrainedModel
    adapters: RoleAdapters | None
    processes: Processes

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
        batches: This process's share of the batch of each step.
        precision: ``bf16`` runs the forward pass under autocast.
        compile_body: Compile the layers with torch.compile (needs a C++ compiler; one shape is best).
        adapters: Adapters of one role on the model, for all tokens.
        recompute: Keep only the layers' inputs for the backward pass, and compute the rest again (gradient
            checkpointing).
        processes: Who else computes a share of each step.

    Raises:
        UserError: The model can't compute its layers again.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batches: BatchSource,
        precision: Precision = "fp32",
        compile_body: bool = False,
        adapters: RoleAdapters | None = None,
        *,
        recompute: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.batches, self.adapters, self.processes = model, batches, adapters, processes
        self.precision: Precision = precision
        torch.nn.Module.to(model, device())
        if recompute:
            recompute_layers(model, self._setting)
        self._losses = TokenLosses(model, compile_body)
        alone = device().type == "cpu" and adapters is None and not compile_body and not recompute
        threads = torch.get_num_threads() if alone else 1
        self._shards = Shards(threads) if threads > 1 else None

    def __call__(self, step: int) -> Outcome:
        """The loss of the step's batch."""
        batch = self.batches(step)
        losses, weighted = torch.zeros(0), None
        if batch.tokens:
            losses, weighted = self._weighted(batch)
        (rows, width), n = batch.ids.shape, len(batch.targets)
        flops = training_flops(self.model, rows, width, n)
        sums = add_up(self.processes, losses, batch.group, batch.weight, batch.tokens, flops)
        loss = weighted / sums.weight if weighted is not None else None
        return Outcome.of(loss, sums.weighted / sums.weight, sums)

    def _weighted(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each token [N], and their weighted sum with its graph."""
        if self._shards is None or len(batch.ids) < 2:
            with self._setting():
                return self._part(batch)
        with self._setting():
            return self._shards.run(lambda rows: self._part(batch.rows(rows)), len(batch.ids), self.clipped()[0])

    def _part(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        on = device()
        with autocast(self.precision):
            losses = self._losses(batch.ids.to(on), batch.select.to(on), batch.targets.to(on))
        return losses.detach(), (losses * batch.weight.to(on)).sum()

    @contextmanager
    def _setting(self) -> Iterator[None]:
        """What holds while layers are computed, for the first time or again."""
        routed = self.adapters.routed(self.adapters.roles[0]) if self.adapters else nullcontext()
        with routed, blockwise(self.model):
            yield

    def clipped(self) -> list[list[torch.nn.Parameter]]:
        """All weights together."""
        return [[p for p in self.model.parameters() if p.requires_grad]]


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
