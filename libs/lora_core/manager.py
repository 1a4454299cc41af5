"""`LoRAManager`: adapters applied to a model by wrapping its linear layers, and taken off again."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from torch import nn

from lora_core.card import LoRACard
from lora_core.errors import AdapterNotFound, InvalidAdapter
from lora_core.format.arrow_format import LoRAFormat
from lora_core.layers import Adaptable, dimensions, is_adaptable
from lora_core.linear import LoRALinear, wrap
from lora_core.validation import check_module

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Injection:
    """What applying an adapter changed: full names of the layers wrapped, names not found, numbers added."""

    name: str
    modules: tuple[str, ...]
    missing: tuple[str, ...]
    parameters: int


class LoRAManager:
    """Applies adapters to one model for as long as they are wanted: to train them, or to serve one for all rows.

    For many adapters in one batch use `ArrowEngine`: it never touches the module tree. Not thread-safe: apply and
    remove between forward passes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._active: dict[str, Injection] = {}
        self._layers: dict[tuple[str, str], LoRALinear] = {}
        self._cards: dict[str, LoRACard] = {}

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the applied adapters, in the order in which they were applied."""
        return tuple(self._active)

    @property
    def injections(self) -> Mapping[str, Injection]:
        """Adapter name → what it changed."""
        return MappingProxyType(self._active)

    @staticmethod
    def load(path: Path | str) -> LoRACard:
        """Read a card from an adapter file. Raises AdapterNotFound or CorruptAdapter."""
        return LoRAFormat.load(path)

    def apply(self, card: LoRACard | Path | str) -> Injection:
        """Wrap every layer that the card has weights for. An active adapter of that name is left as it is.

        Layers that the model lacks are logged and left out; an adapter of which no layer is found is refused. Shapes
        are checked before the first layer is wrapped: a refused adapter leaves the model as it was.
        Raises InvalidAdapter, and for a path also AdapterNotFound or CorruptAdapter.
        """
        if not isinstance(card, LoRACard):
            card = self.load(card)
        if card.name in self._active:
            log.warning("adapter_already_active adapter=%s", card.name)
            return self._active[card.name]
        modules = dict(self._model.named_modules())
        found: dict[str, Adaptable | LoRALinear] = {}
        missing: list[str] = []
        for name, weights in card.weights.items():
            layer = modules.get(name)
            if not isinstance(layer, LoRALinear) and not is_adaptable(layer):
                missing.append(name)
                continue
            check_module(name, weights, dimensions(layer.origin if isinstance(layer, LoRALinear) else layer))
            found[name] = layer
        if not found:
            raise InvalidAdapter("target_modules", list(card.target_modules), "layers that the model has")
        if missing:
            shown = ",".join(missing[:8])
            log.warning("target_modules_missing adapter=%s count=%d first=%s", card.name, len(missing), shown)
        for name, layer in found.items():
            wrapped = wrap(layer, card.weights[name], card.alpha, rslora=card.rslora)
            wrapped.train(layer.training)
            self._layers[card.name, name] = wrapped
            self._model.set_submodule(name, wrapped)
        parameters = sum(array.size for name in found for array in card.weights[name].arrays.values())
        injection = Injection(card.name, tuple(found), tuple(missing), parameters)
        self._active[card.name] = injection
        self._cards[card.name] = card
        log.info("adapter_applied adapter=%s layers=%d parameters=%d", card.name, len(found), parameters)
        return injection

    def card(self, name: str) -> LoRACard:
        """An applied adapter as it is now, trained or not, of the layers that the model has. Raises AdapterNotFound."""
        if name not in self._active:
            raise AdapterNotFound(f"adapter {name!r} is not active (active: {', '.join(self._active) or 'none'})")
        weights = {module: self._layers[name, module].weights() for module in self._active[name].modules}
        return replace(self._cards[name], weights=weights)

    def remove(self, name: str) -> None:
        """Take the adapter off: each layer is again the very module it wrapped. Unknown names are no error."""
        self._cards.pop(name, None)
        injection = self._active.pop(name, None)
        if injection is None:
            return
        for module in injection.modules:
            layer = self._layers.pop((name, module))
            outer = self._wrapper_of(module, layer)
            if outer is None:
                self._model.set_submodule(module, layer.base_layer)
            else:
                outer.base_layer = layer.base_layer
        log.info("adapter_removed adapter=%s layers=%d", name, len(injection.modules))

    def _wrapper_of(self, module: str, inner: LoRALinear) -> LoRALinear | None:
        """The adapter layer around `inner`, where a later adapter targets the same module."""
        others = (self._layers.get((name, module)) for name in self._active)
        return next((layer for layer in others if layer is not None and layer.base_layer is inner), None)
