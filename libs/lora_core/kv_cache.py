"""A key/value cache that grows by doubling: transformers' own copies every key at every token."""

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


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
        capacity = max(64, needed + needed // 2)
        grown = []
        for new, old in ((key_states, self.keys), (value_states, self.values)):
            buffer = new.new_empty((*new.shape[:-2], capacity, new.shape[-1]))
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


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """The cache that a model of this configuration needs, its plain layers replaced by growing ones."""
    cache = DynamicCache(config=config)
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:  # sliding windows and others keep what transformers gives them
            cache.layers[number] = GrowingLayer()  # type: ignore[no-untyped-call]
    return cache
