"""A key/value cache in which every row has a place of its own and is at a position of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, DynamicCache, DynamicLayer


class RowLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no annotations
    """One layer's view of the first rows and positions of a `RowCache`; an update writes one token of each row."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, at: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = keys, values
        self._keys, self._values, self._rows, self._at = keys, values, rows, at
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: the memory is there."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """key_states, value_states: [rows, heads, 1, head_dim]. Returns all of both, to be masked by position."""
        self._keys[self._rows, :, self._at] = key_states[:, :, 0]
        self._values[self._rows, :, self._at] = value_states[:, :, 0]
        return self._keys, self._values

    def get_seq_length(self) -> int:
        return 0  # rows have their own; position ids and masks are given

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002 - masks are given
        return int(self._keys.shape[2]), 0

    def get_max_length(self) -> int:
        return int(self._keys.shape[2])


class RowCache:
    """Room for `rows` rows of `positions` tokens: of each layer keys and values, [rows, heads, positions, head_dim]."""

    def __init__(self, rows: int, positions: int, like: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """like: a key and a value tensor of each layer, [any, heads, any, head_dim]."""
        self.rows, self.positions = rows, positions
        self._layers = [
            (
                keys.new_zeros((rows, keys.shape[1], positions, keys.shape[3])),
                values.new_zeros((rows, values.shape[1], positions, values.shape[3])),
            )
            for keys, values in like
        ]

    def view(self, positions: int, at: torch.Tensor) -> Cache:
        """The first rows, as many as `at` has, and positions, for a forward pass that writes row i at `at[i]`."""
        rows = torch.arange(at.shape[0], device=at.device)
        count = at.shape[0]
        layers: list[Any] = [
            RowLayer(keys[:count, :, :positions], values[:count, :, :positions], rows, at)
            for keys, values in self._layers
        ]
        return Cache(layers=layers)

    def fill(self, place: int, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Copy a prompt's keys and values, [heads, tokens, head_dim] of each layer, to the beginning of a place."""
        for (keys, values), (own_keys, own_values) in zip(self._layers, layers, strict=True):
            keys[place, :, : own_keys.shape[1]] = own_keys
            values[place, :, : own_values.shape[1]] = own_values

    def move(self, place: int, to: int, positions: int) -> None:
        """Copy the first positions of a place over another."""
        for layer in self._layers:
            for tensor in layer:
                tensor[to, :, :positions] = tensor[place, :, :positions]


def cacheable(config: PreTrainedConfig) -> bool:
    """Is every layer of the model plain attention over all positions?"""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
