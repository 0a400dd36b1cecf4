"""The local stage of activated adapters: one reading of a transcript for all its steps and all three roles.

Under ``alora`` everything before a role's header is computed by the bare, frozen backbone. So a batch takes two
forwards: one of the backbone over whole transcripts, without gradients, of which only keys and values are kept; and one
over all the role segments together, each token with its own role's adapter, at its original position, attending to the
backbone's keys before its segment and to its own segment. The loss and the gradients are those of one sample a step
(prefix, header, span) through PEFT's activated LoRA, to rounding (``tests/training/test_shared_prefix.py``).

It holds for models with rotary (or other absolute) positions, full attention and no dropout; others are refused.

Shapes: B rows, T tokens a transcript, S segment tokens a row, N tokens in the loss, L layers, H key/value heads,
D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from alpha_umi.adapters import RoleAdapters
from alpha_umi.compute import Precision, autocast, device
from alpha_umi.errors import UserError
from alpha_umi.training.batch import Row
from alpha_umi.training.objective import Outcome, add_up, embedding_matrix, head_matrix
from alpha_umi.training.processes import ALONE, Processes
from alpha_umi.training.recompute import recomputed
from alpha_umi.training.span_batch import SpanBatch, collate_spans
from alpha_umi.transcript import ROLES, Role

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Prefix(CacheLayerMixin):
    """Keys and values of the transcripts, [B, H, T, D]; what is computed later is put behind them and not kept."""

    is_compileable = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the segments attend to, [B, H, T + S, D]."""
        assert self.keys is not None and self.values is not None
        return torch.cat([self.keys, key_states], 2), torch.cat([self.values, value_states], 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots that are seen, and no offset."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """T."""
        assert self.keys is not None
        return self.keys.shape[2]

    def get_max_length(self) -> int:
        """No bound."""
        return -1


class SpanLosses:
    """The loss of every span token of a batch, each role's segments with its own adapter.

    Args:
        adapters: On the frozen backbone.
        recompute: Keep only the layers' inputs for the backward pass, and compute the rest again (gradient
            checkpointing); the prefix's keys and values are kept.

    Raises:
        UserError: The backbone computes something that a shared prefix can't stand in for.
    """

    def __init__(self, adapters: RoleAdapters, recompute: bool = False) -> None:
        self.adapters, self.recompute = adapters, recompute
        self.model = adapters.model
        refuse_unfit(self.model)
        self._body: Any = getattr(self.model, self.model.base_model_prefix)

    def __call__(self, batch: SpanBatch, precision: Precision = "fp32") -> torch.Tensor:
        """Cross entropies, float32 [N], in the order of ``batch.targets``."""
        batch = batch.to(device())
        with autocast(precision):
            prefix = self._prefix(batch.ids)
            hidden = self._spans(batch, prefix)
            head = cast("torch.nn.Linear", self.model.get_output_embeddings())
            logits = head(hidden[batch.select])
        return F.cross_entropy(logits.float(), batch.targets, reduction="none")

    def _spans(self, batch: SpanBatch, prefix: Cache) -> torch.Tensor:
        """Hidden states of the segments' tokens, [B, S, width of the model]."""
        route = _route(batch.owner)
        again = recomputed(self.model, lambda: self.adapters.routed(route)) if self.recompute else nullcontext()
        with self.adapters.routed(route), again:
            return self._body(
                input_ids=batch.segments, position_ids=batch.positions, past_key_values=prefix,
                attention_mask=_mask(batch, self.model.dtype), use_cache=True,
            ).last_hidden_state  # fmt: skip

    def _prefix(self, ids: torch.Tensor) -> Cache:
        """The bare backbone's keys and values of the transcripts."""
        with torch.no_grad():
            cache = DynamicCache()
            self._body(input_ids=ids, past_key_values=cache, use_cache=True)
        return Cache(layers=[_Prefix(layer.keys, layer.values) for layer in cache.layers])  # pyright: ignore


class SpanObjective:
    """The mean loss of each role, added up: three adapters that learn side by side, none of them moving another.

    Args:
        adapters: On the frozen backbone; the model is moved to the GPU if there is one.
        rows: This process's share of the rows of each step.
        precision: ``bf16`` runs the forward passes under autocast.
        recompute: As in `SpanLosses`.
        processes: Who else computes a share of each step.
    """

    def __init__(
        self,
        adapters: RoleAdapters,
        rows: Callable[[int], Sequence[Row]],
        precision: Precision = "fp32",
        *,
        recompute: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.processes = adapters.model, processes
        torch.nn.Module.to(self.model, device())
        self.adapters: RoleAdapters | None = adapters
        self._rows = rows
        self._precision: Precision = precision
        self._losses = SpanLosses(adapters, recompute)

    def __call__(self, step: int) -> Outcome:
        """The loss of the step's rows."""
        rows = self._rows(step)
        if not rows:
            nothing = torch.zeros(0)
            sums = add_up(self.processes, nothing, nothing.long(), nothing, 0, 0.0)
            return Outcome.of(None, sum(sums.means.values()), sums)
        batch = collate_spans(rows)
        losses = self._losses(batch, self._precision)
        owner, flops = batch.owner[batch.select], span_flops(self._losses.adapters, batch)
        sums = add_up(self.processes, losses, owner, torch.ones(len(owner)), batch.tokens, flops)
        share = torch.tensor(sums.counts).reciprocal()[owner].to(losses)  # a role's token is this much of its mean
        return Outcome.of((losses * share).sum(), sum(sums.means.values()), sums)

    def clipped(self) -> list[list[torch.nn.Parameter]]:
        """Each role's weights by themselves."""
        adapters = self._losses.adapters
        return [list(adapters.named(role).values()) for role in adapters.roles]


def span_flops(adapters: RoleAdapters, batch: SpanBatch) -> float:
    """FLOPs of a step: 2 a weight and token to read, 4 to learn through frozen weights, 6 for adapters; attention."""
    model = adapters.model
    config: Any = model.config
    own = {id(p) for role in adapters.roles for p in adapters.named(role).values()}
    aside = {id(embedding_matrix(model)), id(head_matrix(model))}
    body = sum(p.numel() for p in model.parameters() if id(p) not in own | aside)
    adapter = sum(p.numel() for p in adapters.named(adapters.roles[0]).values())
    (rows, width), size = batch.ids.shape, batch.segments.shape[1]
    layers = config.num_hidden_layers * config.hidden_size
    attention = layers * rows * (2 * width * width + 12 * size * (width + size))
    learned = size * rows * (4.0 * body + 6.0 * adapter) + 4.0 * head_matrix(model).numel() * len(batch.targets)
    return 2.0 * body * rows * width + learned + attention


def _route(owner: torch.Tensor) -> dict[Role, torch.Tensor]:
    """Flat indices of each role's tokens."""
    flat = owner.flatten()
    found: dict[Role, torch.Tensor] = {role: (flat == number).nonzero()[:, 0] for number, role in enumerate(ROLES)}
    return {role: tokens for role, tokens in found.items() if len(tokens)}


def _mask(batch: SpanBatch, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask [B, 1, S, T + S]: the transcript before one's segment, and one's segment up to oneself."""
    before = torch.arange(batch.ids.shape[1], device=batch.ids.device) < batch.starts[..., None]  # [B, S, T]
    alike = batch.number[:, :, None] == batch.number[:, None, :]
    own = alike & (batch.positions[:, None, :] <= batch.positions[:, :, None])  # [B, S, S]; padding sees padding
    seen = torch.cat([before, own], -1)[:, None]
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def refuse_unfit(model: PreTrainedModel) -> None:
    """Refuses a backbone for which a shared prefix isn't the same computation.

    Raises:
        UserError: It says which property is in the way; ``lora`` works with any backbone.
    """
    config: Any = model.config.get_text_config()
    name = type(model).__name__
    reasons = [
        (_slides(config), "attention over a sliding window"),
        (_rope(config) in ("dynamic", "longrope"), "positions that depend on the length of the sequence"),
        (not hasattr(config, "num_key_value_heads") and not hasattr(config, "num_attention_heads"), "no attention"),
        (getattr(config, "attention_dropout", 0) > 0, "dropout in attention"),
    ]
    for unfit, reason in reasons:
        if unfit:
            raise UserError(f"{name} has {reason}, so its roles can't share a prefix: take the variant lora instead")


def _slides(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True)


def _rope(config: Any) -> str:
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return str(found.get("rope_type", found.get("type", "default")))
