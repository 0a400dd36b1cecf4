"""Keys and values: a batch of rows with different lengths for transformers' attention, and a session's own copy.

Shapes: B rows, L layers, H key/value heads, T slots, S new tokens a row, D width of a head. A token's slot is its
position. Rows are right-padded: what padding writes lies in slots after the row's last token, where no query of the row
looks (it sees slots up to its own position) before a real token has taken the slot. Such a slot still takes part in the
matrix products, with weight 0, so its content must be finite: the workspace is zeroed once and then holds only what
models computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_GROW = 128


class Workspace:
    """Memory for the batch that is being computed, kept between calls so that its pages need no clearing again."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._flat = torch.zeros(0, dtype=dtype, device=device)

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        return self._flat.nbytes

    def take(self, layers: int, rows: int, heads: int, slots: int, width: int) -> torch.Tensor:
        """A finite tensor [L, 2, B, H, T, D]; the one taken before is lost."""
        count = layers * 2 * rows * heads * slots * width
        if self._flat.numel() < count:
            size = count + count // 8
            self._flat = torch.empty(0, dtype=self._flat.dtype, device=self._flat.device)
            self._flat = torch.zeros(size, dtype=self._flat.dtype, device=self._flat.device)
        return self._flat[:count].view(layers, 2, rows, heads, slots, width)


class _Layer(CacheLayerMixin):
    """One layer's part of a `BatchCache`."""

    is_compileable = False

    def __init__(self, cache: BatchCache, number: int) -> None:
        super().__init__()
        self._cache = cache
        self._number = number
        self.is_initialized = True
        self.bind()

    def bind(self) -> None:
        """Takes the rows [lo, hi) and the visible slots of the batch."""
        self._kv = self._cache.kv[self._number, :, self._cache.lo : self._cache.hi]
        self._slots = self._kv.transpose(2, 3).unbind()

    def see(self) -> None:
        """Takes the slots that attention reads."""
        self.keys, self.values = self._kv[:, :, :, : self._cache.visible].unbind()

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the memory is given."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes [B, H, S, D] into the rows' slots and returns what is visible, [B, H, T, D]."""
        assert self.keys is not None and self.values is not None
        if self._cache.same is not None:
            self.keys[:, :, self._cache.same] = key_states
            self.values[:, :, self._cache.same] = value_states
        else:
            keys, values = self._slots  # [B, T, H, D]
            keys.index_put_(self._cache.index, key_states.transpose(1, 2))
            values.index_put_(self._cache.index, value_states.transpose(1, 2))
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Visible slots, and no offset."""
        return self._cache.visible, 0

    def get_seq_length(self) -> int:
        """Visible slots (positions are always given to the model, so nothing is derived from this)."""
        return self._cache.visible

    def get_max_length(self) -> int:
        """Slots there are."""
        return self._cache.kv.shape[4]


class BatchCache(Cache):
    """The cache that the model writes to and reads from: rows [lo, hi) of a workspace.

    Attributes:
        kv: [L, 2, B, H, T, D].
        index: Rows and slots that the next forward writes, as `torch.Tensor.index_put_` takes them.
        same: The slots instead, where they are the same ones in every row.
        visible: How many slots the next forward reads.
    """

    def __init__(self, kv: torch.Tensor) -> None:
        self.kv = kv
        self.lo, self.hi = 0, kv.shape[2]
        self.visible = 0
        self.same: slice | None = None
        self.index: tuple[torch.Tensor, torch.Tensor]
        self._rows = torch.arange(kv.shape[2], device=kv.device)[:, None]
        super().__init__(layers=[_Layer(self, number) for number in range(kv.shape[0])])

    def select(self, lo: int, hi: int) -> None:
        """The rows that the next forwards compute."""
        self.lo, self.hi = lo, hi
        for layer in self.layers:
            layer.bind()  # pyright: ignore[reportAttributeAccessIssue]
        self.visible = 0

    def aim(self, slots: torch.Tensor, visible: int, same: slice | None = None) -> None:
        """Where the next forward writes.

        Args:
            slots: [B, S].
            visible: How many slots it reads.
            same: The slots as a slice, if they are the same in every row.
        """
        self.same = same
        self.index = (self._rows[: self.hi - self.lo], slots)
        if visible != self.visible:
            self.visible = visible
            for layer in self.layers:
                layer.see()  # pyright: ignore[reportAttributeAccessIssue]


class SessionCache:
    """What is kept of a session between calls: its ids and their keys and values.

    Several sessions may read the same memory after a fork; whoever writes into what another may read copies first.

    Attributes:
        ids: The tokens whose keys and values are in ``kv[..., : len(ids), :]``.
        kv: [L, 2, H, T, D] with some room to grow.
        shared: How many slots others may be reading.
        version: Changes whenever the content does.
    """

    def __init__(self, kv: torch.Tensor, ids: list[int]) -> None:
        self.kv = kv
        self.ids = ids
        self.shared = 0
        self.version = 0

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        return self.kv.numel() * self.kv.element_size()

    @classmethod
    def copy(cls, row: torch.Tensor, ids: list[int]) -> SessionCache:
        """From a row [L, 2, H, T, D] of a batch."""
        layers, two, heads, _, width = row.shape
        size = -(-(len(ids) + _GROW // 2) // _GROW) * _GROW
        kv = torch.empty(layers, two, heads, size, width, dtype=row.dtype, device=row.device)
        kv[:, :, :, : len(ids)] = row[:, :, :, : len(ids)]
        return cls(kv, ids)

    def extend(self, row: torch.Tensor, ids: list[int], kept: int) -> SessionCache:
        """After a batch: the slots from ``kept`` on are new. In place where that harms nobody and there is room."""
        if kept < self.shared or len(ids) > self.kv.shape[3]:
            return SessionCache.copy(row, ids)
        self.kv[:, :, :, kept : len(ids)] = row[:, :, :, kept : len(ids)]
        self.ids = ids
        self.version += 1
        return self

    def fork(self, length: int) -> SessionCache:
        """A session that begins with the first ``length`` tokens, in the same memory."""
        length = min(length, len(self.ids))
        self.shared = max(self.shared, length)
        child = SessionCache(self.kv, self.ids[:length])
        # the child owns nothing of the memory, not even the slots after its own end
        child.shared = self.kv.shape[3] + 1
        return child


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many items at the start are the same."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    lo, hi = 0, size
    while hi - lo > 1:
        middle = (lo + hi) // 2
        if a[lo:middle] == b[lo:middle]:
            lo = middle
        else:
            hi = middle
    return lo
