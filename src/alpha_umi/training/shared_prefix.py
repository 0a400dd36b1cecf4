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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from alpha_umi.adapters import RoleAdapters
from alpha_umi.compute import Precision, autocast, device
from alpha_umi.errors import UserError
from alpha_umi.training.loop import Outcome, Row, embedding_matrix, head_matrix
from alpha_umi.transcript import ROLES, Role

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PAD_TO = 64
_OWNERS: dict[str, int] = {role: number for number, role in enumerate(ROLES)}


@dataclass(frozen=True)
class SpanBatch:
    """Transcripts and their role segments.

    Attributes:
        ids: int64 [B, T], right-padded.
        segments: int64 [B, S]: the tokens of all segments but each one's end token, right-padded.
        positions: int64 [B, S], offsets in the transcript.
        starts: int64 [B, S], where the token's segment starts; 0 where there is none.
        number: int64 [B, S], which segment of the row it is; -1 where there is none.
        owner: int64 [B, S], index into `ROLES`; -1 where there is none.
        select: bool [B, S], True where the next token is in the loss.
        targets: int64 [N], those next tokens.
    """

    ids: torch.Tensor
    segments: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    number: torch.Tensor
    owner: torch.Tensor
    select: torch.Tensor
    targets: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens forwarded, padding included: transcripts once, segments once more."""
        return self.ids.numel() + self.segments.numel()

    def to(self, place: torch.device) -> SpanBatch:
        """The same batch on another device."""
        return SpanBatch(**{name: tensor.to(place) for name, tensor in vars(self).items()})


def collate_spans(rows: Sequence[Row], pad_to: int = _PAD_TO) -> SpanBatch:
    """Puts rows together; what follows a row's last segment is never read.

    Args:
        rows: Each with one segment at least.
        pad_to: T and S are multiples of it (few shapes: CPU kernels are compiled per shape).
    """
    width = _rounded(max(row.segments[-1].start for row in rows), pad_to)
    size = _rounded(max(sum(segment.span_stop - segment.start - 1 for segment in row.segments) for row in rows), pad_to)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    fields = {name: torch.zeros(len(rows), size, dtype=torch.long) for name in ("segments", "positions", "starts")}
    fields |= {name: torch.full((len(rows), size), -1) for name in ("number", "owner", "next")}
    for b, row in enumerate(rows):
        known = row.ids[: row.segments[-1].start]
        ids[b, : len(known)] = torch.tensor(known)
        at = 0
        for number, segment in enumerate(row.segments):
            start, first, stop = segment.start, segment.span_start, segment.span_stop
            place = slice(at, at := at + stop - start - 1)
            fields["segments"][b, place] = torch.tensor(row.ids[start : stop - 1])
            fields["positions"][b, place] = torch.arange(start, stop - 1)
            fields["starts"][b, place] = start
            fields["number"][b, place] = number
            fields["owner"][b, place] = _OWNERS[segment.kind]
            fields["next"][b, place][first - start - 1 :] = torch.tensor(row.ids[first:stop])
    following = fields.pop("next")
    select = following >= 0
    return SpanBatch(ids, **fields, select=select, targets=following[select])


def _rounded(size: int, step: int) -> int:
    return max(1, -(-size // step)) * step


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

    Raises:
        UserError: The backbone computes something that a shared prefix can't stand in for.
    """

    def __init__(self, adapters: RoleAdapters) -> None:
        self.adapters = adapters
        self.model = adapters.model
        refuse_unfit(self.model)
        self._body: Any = getattr(self.model, self.model.base_model_prefix)

    def __call__(self, batch: SpanBatch, precision: Precision = "fp32") -> torch.Tensor:
        """Cross entropies, float32 [N], in the order of ``batch.targets``."""
        batch = batch.to(device())
        with autocast(precision):
            prefix = self._prefix(batch.ids)
            with self.adapters.routed(_route(batch.owner)):
                hidden = self._body(
                    input_ids=batch.segments, position_ids=batch.positions, past_key_values=prefix,
                    attention_mask=_mask(batch, self.model.dtype), use_cache=True,
                ).last_hidden_state  # fmt: skip
            head = cast("torch.nn.Linear", self.model.get_output_embeddings())
            logits = head(hidden[batch.select])
        return F.cross_entropy(logits.float(), batch.targets, reduction="none")

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
        rows: The rows of each step.
        precision: ``bf16`` runs the forward passes under autocast.
    """

    def __init__(
        self, adapters: RoleAdapters, rows: Callable[[int], Sequence[Row]], precision: Precision = "fp32"
    ) -> None:
        self.model = adapters.model
        torch.nn.Module.to(self.model, device())
        self.adapters: RoleAdapters | None = adapters
        self._rows = rows
        self._precision: Precision = precision
        self._losses = SpanLosses(adapters)

    def __call__(self, step: int) -> Outcome:
        """The loss of the step's rows."""
        batch = collate_spans(self._rows(step))
        losses = self._losses(batch, self._precision)
        owners = batch.owner[batch.select].to(losses.device)
        means = {role: losses[owners == number].mean() for role, number in _OWNERS.items() if (owners == number).any()}
        by_role = {role: float(mean.detach()) for role, mean in means.items()}
        flops = span_flops(self._losses.adapters, batch)
        return Outcome(torch.stack(list(means.values())).sum(), by_role, batch.tokens, len(batch.targets), flops)

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
