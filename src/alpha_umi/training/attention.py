"""Causal attention for training on CPUs: block by block, in plain matrix products.

torch's fused CPU kernel spends most of a bf16 backward pass outside the matrix units. Here the queries go in blocks,
each against the keys up to its own end: about half of the square, no copy of grouped keys, nothing but `bmm` and
`softmax`. On a core with bf16 units that halves the time of forward and backward (``benchmarks/attention.py``). The
weights of every block are kept for the backward pass, B·H·T² bytes a layer in bf16, so this is for rows of a few
thousand tokens.

Shapes: B rows, H heads in groups that share one of K key heads, T tokens, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "alpha_umi_blocks"
_BLOCK = 128
_LONGEST = 4096
"""Above this many tokens the kept weights would take too much memory, and the fused kernel is used."""


class _Blocks(torch.autograd.Function):
    """Softmax(QKᵀ·scale + causal mask)V, one block of queries at a time."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        rows, heads, length, width = query.shape
        shared = key.shape[1]
        q = query.reshape(rows * shared, heads // shared, length, width)
        k, v = key.reshape(-1, length, width), value.reshape(-1, length, width)
        later = torch.full((_BLOCK, _BLOCK), float("-inf"), dtype=q.dtype).triu_(1)
        scaled = k.transpose(1, 2) * scale
        out = torch.empty_like(q)
        weights: list[torch.Tensor] = []
        for start in range(0, length, _BLOCK):
            end = min(start + _BLOCK, length)
            scores = torch.bmm(q[:, :, start:end].flatten(1, 2), scaled[:, :, :end])
            own = scores.unflatten(1, (-1, end - start))[..., start:]
            own.add_(later[: end - start, : end - start])
            weights.append(torch.softmax(scores, -1))
            out[:, :, start:end] = torch.bmm(weights[-1], v[:, :end]).unflatten(1, (-1, end - start))
        ctx.save_for_backward(q, k, v, *weights)
        ctx.scale = scale
        return out.view(rows, heads, length, width)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        shape, (length, width) = grad.shape, k.shape[1:]
        g = grad.reshape(q.shape)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        values = v.transpose(1, 2)
        for start, weight in zip(range(0, length, _BLOCK), weights, strict=True):
            end = min(start + _BLOCK, length)
            g_own, q_own = g[:, :, start:end].flatten(1, 2), q[:, :, start:end].flatten(1, 2)
            grad_v[:, :end] += torch.bmm(weight.transpose(1, 2), g_own)
            through = torch.bmm(g_own, values[:, :, :end])
            scores = torch.ops.aten._softmax_backward_data(through, weight, -1, weight.dtype)  # 0 where it is masked
            grad_q[:, :, start:end] = torch.bmm(scores, k[:, :end]).mul_(ctx.scale).unflatten(1, (-1, end - start))
            grad_k[:, :end] += torch.bmm(scores.transpose(1, 2), q_own).mul_(ctx.scale)
        shared = (shape[0], -1, length, width)
        return grad_q.view(shape), grad_k.view(shared), grad_v.view(shared), None


def block_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention, differentiable, without dropout.

    Args:
        query: [B, H, T, D].
        key: [B, K, T, D]; H is a multiple of K.
        value: [B, K, T, D].
        scale: Factor of the scores, usually D to the power of -0.5.

    Returns:
        [B, H, T, D], in the dtype of ``value``; computed in that of autocast, where it is on.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else value.dtype
    with torch.autocast("cpu", enabled=False):
        out: Any = _Blocks.apply(query.to(dtype), key.to(dtype), value.to(dtype), scale)
    return out.to(value.dtype)


@torch.compiler.disable
def _forward(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention of a transformers layer; what isn't plain causal attention over one row goes to the fused kernel."""
    length = query.shape[2]
    plain = attention_mask is None and not dropout and key.shape[2] == length and 1 < length <= _LONGEST
    special = any(kwargs.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    if not plain or special or not kwargs.get("is_causal", getattr(module, "is_causal", True)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return block_attention(query, key, value, scale).transpose(1, 2).contiguous(), None


def _mask(*, q_length: int, kv_length: int, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
    """No mask for whole rows at their ordinary positions, under torch.compile too (where transformers makes one)."""
    if attention_mask is None and q_length == kv_length and kwargs.get("local_size") is None:
        return None
    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(_NAME, _forward)
AttentionMaskInterface.register(_NAME, _mask)


@contextmanager
def blockwise(model: PreTrainedModel) -> Iterator[None]:
    """Lets a model on a CPU attend block by block while this lasts, if it attends with torch's fused kernel now.

    The rows it is given meanwhile are plain: padded on the right, positions counted from 0, not packed by position.
    """
    before: str = model.config._attn_implementation  # pyright: ignore[reportAssignmentType]
    if before != "sdpa" or model.device.type != "cpu":
        yield
        return
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
