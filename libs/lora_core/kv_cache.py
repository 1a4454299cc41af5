"""A key/value cache that grows by doubling: transformers' own copies every key at every token."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no annotations
    """One layer's keys and values, [rows, heads, tokens, head_dim], as views of buffers with room to spare."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        needed = used + key_states.shape[-2]
        if not used or needed > self._buffers[0].shape[-2]:
            self._grow(key_states, value_states, used, needed)
        keys, values = self._buffers
        keys[..., used:needed, :] = key_states
        values[..., used:needed, :] = value_states
        self.keys, self.values = keys[..., :needed, :], values[..., :needed, :]
        return self.keys, self.values

    def _grow(self, key_states: torch.Tensor, value_states: torch.Tensor, used: int, needed: int) -> None:
        grown = []
        for new, old in ((key_states, self.keys), (value_states, self.values)):
            buffer = new.new_empty((*new.shape[:-2], _room(needed), new.shape[-1]))
            if used and old is not None:
                buffer[..., :used, :] = old
            grown.append(buffer)
        self._buffers = (grown[0], grown[1])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        used = self.get_seq_length()
        if used:
            keys, values = (buffer.index_select(0, indices) for buffer in self._buffers)
            self._buffers = (keys, values)
            self.keys, self.values = keys[..., :used, :], values[..., :used, :]

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
        self._buffers = (buffer[0], buffer[1])
        self.keys, self.values = buffer[0][..., :used, :], buffer[1][..., :used, :]

    def trim(self, positions: int) -> None:
        """Forget the first positions."""
        if self.get_seq_length():
            used = self.get_seq_length() - positions
            keys, values = (buffer[..., positions:, :] for buffer in self._buffers)
            self._buffers = (keys, values)
            self.keys, self.values = keys[..., :used, :], values[..., :used, :]

    def join(self, other: "GrowingLayer", positions: int, order: Sequence[int]) -> None:
        """Take another layer's rows; all become `positions` long, padded with zeros on the left.

        order: which row comes to each place, its own first and then the other's counted on.
        """
        mine_used, their_used = self.get_seq_length(), other.get_seq_length()
        rows = self._buffers[0].shape[0]
        places: list[list[int]] = [[], []]
        taken: list[list[int]] = [[], []]
        for place, row in enumerate(order):
            places[row >= rows].append(place)
            taken[row >= rows].append(row - rows if row >= rows else row)
        joined = []
        for mine, theirs in zip(self._buffers, other._buffers, strict=True):
            shape = (mine.shape[0] + theirs.shape[0], *mine.shape[1:-2], _room(positions), mine.shape[-1])
            buffer = mine.new_zeros(shape)
            buffer[places[0], ..., positions - mine_used : positions, :] = mine[taken[0], ..., :mine_used, :]
            buffer[places[1], ..., positions - their_used : positions, :] = theirs[taken[1], ..., :their_used, :]
            joined.append(buffer)
        self._buffers = (joined[0], joined[1])
        self.keys, self.values = joined[0][..., :positions, :], joined[1][..., :positions, :]


def _room(needed: int) -> int:
    return max(64, needed + needed // 2)


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
