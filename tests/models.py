"""Random weights that tests can tell apart."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from alpha_umi.adapters import RoleAdapters
from alpha_umi.run_directory import AdapterShape
from alpha_umi.transcript import ROLES


def random_adapters(model: PreTrainedModel, seed: int, size: float) -> RoleAdapters:
    """Adapters of all roles on the model, whose matrices are all random and of this standard deviation."""
    adapters = RoleAdapters(model, ROLES, AdapterShape(rank=4, alpha=8))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for role in ROLES:
            for matrix in adapters.named(role).values():
                matrix.copy_(torch.randn(matrix.shape, generator=generator) * size)
    return adapters
