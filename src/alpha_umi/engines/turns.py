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

import torch

from alpha_umi.adapters import RoleAdapters
from alpha_umi.engines.row import Row
from alpha_umi.run_directory import Variant
from alpha_umi.transcript import ROLES, Role


class Turns:
    """The adapters of a runner.

    Args:
        adapters: Fused, one a role.
        variant: Of them.
    """

    def __init__(self, adapters: RoleAdapters, variant: Variant) -> None:
        self.adapters, self.variant = adapters, variant
        self._speaking: list[Row] = []
        self._mask: torch.Tensor | None = None

    def kept(self, row: Row) -> int:
        """How many of the row's tokens have keys and values that another turn can read."""
        return len(row.ids) if self.variant == "lora" else min(row.header, len(row.ids))

    def routed(self, rows: Sequence[Row], slots: torch.Tensor) -> AbstractContextManager[None]:
        """The context in which tokens of these rows, at these slots [B, S], are computed."""
        if self.variant == "lora":
            return self.adapters.routed(_role(rows[0]))
        if slots.shape[1] == 1 and all(row.out for row in rows):
            return self.adapters.routed(self._one_token(rows, slots.device))
        first = torch.tensor([[row.header] for row in rows], device=slots.device)
        active = slots >= first
        if not active.any():
            return self.adapters.routed(None)
        return self.adapters.routed(self.adapters.mask(torch.where(active, self._owners(rows, slots.device), -1)))

    def _one_token(self, rows: Sequence[Row], device: torch.device) -> torch.Tensor:
        """The mask of a step in which every row computes a token of its span; made anew only for other rows."""
        same = len(rows) == len(self._speaking) and all(a is b for a, b in zip(rows, self._speaking, strict=True))
        if self._mask is None or not same:
            self._speaking, self._mask = list(rows), self.adapters.mask(self._owners(rows, device))
        return self._mask

    def over(self) -> None:
        """Lets go of the rows of a batch that is over."""
        self._speaking, self._mask = [], None

    def _owners(self, rows: Sequence[Row], device: torch.device) -> torch.Tensor:
        return torch.tensor([[self.adapters.roles.index(_role(row))] for row in rows], device=device)


def _role(row: Row) -> Role:
    assert row.voice in ROLES
    return row.voice
