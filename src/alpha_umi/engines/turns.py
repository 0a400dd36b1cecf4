"""Whose adapter computes which tokens of a batch.

Under ``lora`` a role's adapter computes all that its model reads and writes, so each role has a cache of its own. Under
``alora`` it computes the role's header and span alone, over keys and values that are the bare backbone's: one cache a
session serves all roles. What a role wrote is then not kept; with the header, it is read by the backbone when the next
role is asked, in one forward with whatever else was appended.

Shapes: B rows, S new tokens a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from alpha_umi.adapters import RoleAdapters
from alpha_umi.engines.decoding import Row
from alpha_umi.run_directory import Variant
from alpha_umi.transcript import ROLES, Role


@dataclass(frozen=True)
class Turns:
    """The adapters of a runner.

    Attributes:
        adapters: Fused, one a role.
        variant: Of them.
    """

    adapters: RoleAdapters
    variant: Variant

    def kept(self, row: Row) -> int:
        """How many of the row's tokens have keys and values that another turn can read."""
        return len(row.ids) if self.variant == "lora" else min(row.header, len(row.ids))

    def routed(self, rows: Sequence[Row], slots: torch.Tensor) -> AbstractContextManager[None]:
        """The context in which tokens of these rows, at these slots [B, S], are computed."""
        if self.variant == "lora":
            return self.adapters.routed(_role(rows[0]))
        first = torch.tensor([[row.header] for row in rows], device=slots.device)
        active = slots >= first
        if not active.any():
            return self.adapters.routed(None)
        numbers = [[self.adapters.roles.index(_role(row))] for row in rows]
        owner = torch.where(active, torch.tensor(numbers, device=slots.device), -1)
        return self.adapters.routed(self.adapters.mask(owner))


def _role(row: Row) -> Role:
    assert row.voice in ROLES
    return row.voice
