"""Random weights that tests can tell apart."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from alpha_umi.adapters import RoleAdapters
from alpha_umi.run_directory import AdapterShape
from alpha_umi.transcript import ROLES, Renderer


def random_adapters(model: PreTrainedModel, seed: int, size: float) -> RoleAdapters:
    """Adapters of all roles on the model, whose matrices are all random and of this standard deviation."""
    adapters = RoleAdapters(model, ROLES, AdapterShape(rank=4, alpha=8))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for role in ROLES:
            for matrix in adapters.named(role).values():
                matrix.copy_(torch.randn(matrix.shape, generator=generator) * size)
    return adapters


def random_model(renderer: Renderer, seed: int = 0) -> PreTrainedModel:
    """Writes nonsense that depends on the whole context."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=len(renderer.tokenizer), max_position_embeddings=4096,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "lm_head" not in name:
                parameter.normal_(0, 0.3)
    return model.eval()
