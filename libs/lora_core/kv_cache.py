"""A key/value cache with room to grow: transformers' own copies every key at every token."""

from collections.abc import Sequence
from typing import cast

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no annotations
    """One layer's keys and values, [rows, heads, tokens, head_dim], as views of buffers with room to spare.

    Rows and positions come and go within the buffers: what stays is moved only where it is in the way.
    """

    _buffers: tuple[torch.Tensor, torch.Tensor]
    _first = 0
    """Where in the buffers the first position is."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used, rows = self.get_seq_length(), key_states.shape[0]
        needed = used + key_states.shape[-2]
        if not used:
            self._buffers = tuple(_buffer(one, rows, needed) for one in (key_states, value_states))  # type: ignore[assignment]
        elif self._first + needed > self._buffers[0].shape[-2]:
            self._make_room(rows, used, needed)
        self._show(rows, needed)
        keys, values = cast("torch.Tensor", self.keys), cast("torch.Tensor", self.values)
        keys[..., used:, :] = key_states
        values[..., used:, :] = value_states
        return keys, values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Have these rows, in this order; a row may be there several times."""
        used = self.get_seq_length()
        if used:
            self._buffers = tuple(buffer.index_select(0, indices) for buffer in self._buffers)  # type: ignore[assignment]
            self._show(len(indices), used)

    def fill(self, beginnings: Sequence[torch.Tensor | None], used: int) -> None:
        """Begin with `used` positions of each row, of which its own numbers are the last.

        beginnings: of each row keys and values, [2, heads, tokens, head_dim], one of them not None.
        """
        like = next(one for one in beginnings if one is not None)
        shape = (2, len(beginnings), like.shape[1], _room(used), like.shape[3])
        buffer = like.new_zeros(shape)
        for row, own in enumerate(beginnings):
            if own is not None:
                buffer[:, row, :, used - own.shape[2] : used] = own
        self.lazy_initialization(buffer[0], buffer[1])
        self._buffers, self._first = (buffer[0], buffer[1]), 0
        self._show(len(beginnings), used)

    def trim(self, positions: int) -> None:
        """Forget the first positions."""
        if used := self.get_seq_length():
            self._first += positions
            self._show(self._rows, used - positions)

    def drop(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Forget rows: after each row of `moves` has gone (from, to), the first `rows` are what is left."""
        if used := self.get_seq_length():
            for one in (self.keys, self.values):
                for source, place in moves:
                    cast("torch.Tensor", one)[place] = cast("torch.Tensor", one)[source]
            self._show(rows, used)

    def join(self, other: "GrowingLayer", positions: int) -> None:
        """Take another layer's rows after its own; all become `positions` long, padded with zeros on the left."""
        mine, rows = self._rows, self._rows + other._rows
        longer = positions - self.get_seq_length()
        if longer or rows > self._buffers[0].shape[0]:
            grown = tuple(_buffer(one, _more(rows), positions) for one in self._buffers)
            for new, old in zip(grown, (self.keys, self.values), strict=True):
                _pad(new[:mine, :, :positions], cast("torch.Tensor", old))
            self._buffers, self._first = grown, 0  # type: ignore[assignment]
        self._show(rows, positions)
        for own, its in ((self.keys, other.keys), (self.values, other.values)):
            # Zeros also where rows were that have left: an adapter's infinite numbers must not reach others.
            _pad(cast("torch.Tensor", own)[mine:], cast("torch.Tensor", its))

    @property
    def _rows(self) -> int:
        return 0 if self.keys is None else self.keys.shape[0]

    def _show(self, rows: int, used: int) -> None:
        keys, values = self._buffers
        shown = slice(self._first, self._first + used)
        self.keys, self.values = keys[:rows, :, shown], values[:rows, :, shown]

    def _make_room(self, rows: int, used: int, needed: int) -> None:
        """Slide to the buffers' beginning where that will last for a while, else have larger ones."""
        if 3 * self._first > self._buffers[0].shape[-2] >= needed:
            for buffer, one in zip(self._buffers, (self.keys, self.values), strict=True):
                for row in range(rows):
                    buffer[row, :, :used] = cast("torch.Tensor", one)[row].clone()
        else:
            grown = tuple(_buffer(buffer, buffer.shape[0], needed) for buffer in self._buffers)
            for new, one in zip(grown, (self.keys, self.values), strict=True):
                new[:rows, :, :used] = cast("torch.Tensor", one)
            self._buffers = grown  # type: ignore[assignment]
        self._first = 0


def _buffer(like: torch.Tensor, rows: int, positions: int) -> torch.Tensor:
    return like.new_empty((rows, like.shape[1], _room(positions), like.shape[3]))


def _pad(into: torch.Tensor, numbers: torch.Tensor) -> None:
    padding = into.shape[2] - numbers.shape[2]
    into[:, :, :padding] = 0
    into[:, :, padding:] = numbers


def _room(needed: int) -> int:
    return max(64, needed + needed // 2)


def _more(rows: int) -> int:
    return rows + 1 + rows // 8


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """The cache that a model of this configuration needs, its plain layers replaced by growing ones."""
    cache = DynamicCache(config=config)
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:  # sliding windows and others keep what transformers gives them
            cache.layers[number] = GrowingLayer()  # type: ignore[no-untyped-call]
    return cache


def grows(config: PreTrainedConfig) -> bool:
    """Is every layer's cache of a model of this configuration a growing one?"""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def copies_rows(cache: DynamicCache) -> bool:
    """Can a row of this cache be had several times? Of the states of linear attention transformers selects no rows."""
    return all(
        isinstance(layer, DynamicLayer) and not isinstance(layer, LinearAttentionCacheLayerMixin)
        for layer in cache.layers
    )
