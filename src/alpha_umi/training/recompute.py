"""Gradient checkpointing: layers keep their input only, and are computed again when the backward pass needs the rest.

Memory for activations falls from all of a layer's to one hidden state a layer, for one more forward pass. What a
forward pass depends on beside its arguments (whose adapter is on, which attention is used) has to hold when it is
done again in the backward pass, long after; so a context is given that brings it back. Autocast comes back by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Context = Callable[[], AbstractContextManager[None]]


def recompute_layers(model: PreTrainedModel, context: Context) -> None:
    """Has transformers recompute the model's layers from now on, while it is in training mode and keeps no cache.

    Args:
        model: Changed in place.
        context: What a recomputation runs in.

    Raises:
        UserError: The model doesn't support it.
    """
    if not model.supports_gradient_checkpointing:
        raise _refusal(model)
    enable: Any = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(_settings(context))


@contextmanager
def recomputed(model: PreTrainedModel, context: Context) -> Iterator[None]:
    """While this lasts, forward passes that are given keys and values, and leave them as they are, are recomputed.

    transformers' own way would drop those keys and values, which a layer usually adds to.

    Raises:
        UserError: The model has no layers that could be.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise _refusal(model)
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, **_settings(context))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _settings(context: Context) -> dict[str, Any]:
    return {"use_reentrant": False, "context_fn": lambda: (nullcontext(), context())}


def _refusal(model: PreTrainedModel) -> UserError:
    return UserError(f"gradient_checkpointing: {type(model).__name__} doesn't support it; leave it out")
