"""A deeper copy of a pretrained model that computes the same: layers that add nothing yet, between those there are.

New layers are copies whose two output projections are zero, so each passes its input through; fine-tuning sets them to
work (Chen et al., Net2Net, 2016). What a deeper model knows is therefore what the shallow one knew: capacity to learn
more, not more knowledge.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_OUTPUTS = (("self_attn", "o_proj"), ("mlp", "down_proj"))


def deepened(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """The model with ``layers`` layers, changed in place; the new ones are spread evenly behind the old.

    Raises:
        UserError: It has more layers already, or isn't built of layers with ``self_attn.o_proj`` and ``mlp.down_proj``
            (as Llama, Qwen and their like are).
    """
    inner: Any = getattr(model, "model", None)
    old = list(getattr(inner, "layers", []))
    if not old or not all(hasattr(getattr(old[0], part, None), output) for part, output in _OUTPUTS):
        raise UserError(f"{type(model).__name__} can't be made deeper: its layers aren't built as Llama's are")
    if layers < len(old):
        raise UserError(f"a model of {len(old)} layers can't be made deeper by having {layers}")
    blocks = []
    for number, layer in enumerate(old):
        blocks.append(layer)
        more = layers * (number + 1) // len(old) - len(blocks)
        blocks += [_idle(layer) for _ in range(more)]
    for number, block in enumerate(blocks):
        block.self_attn.layer_idx = number
    inner.layers = type(inner.layers)(blocks)
    config: Any = model.config
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[0]] * layers
    return model


def _idle(layer: Any) -> Any:
    """A copy of a layer that adds nothing."""
    import torch

    block = copy.deepcopy(layer)
    for part, output in _OUTPUTS:
        torch.nn.init.zeros_(getattr(getattr(block, part), output).weight)
    return block
