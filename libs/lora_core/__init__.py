"""LoRA adapters: card, Arrow file format, interop, layers, slots, engine, routing.

Importing this package costs nothing: every public name is imported on first use (PEP 562), so that a service which
only opens and checks adapters never pays for torch. `card`, `arrow_format`, `base_model` (but for its `load`),
`description`, `validation` and `interop` are torch-free.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_core.card import LoRACard
    from lora_core.embedding import SentenceEmbedder
    from lora_core.engine import ArrowEngine, Request
    from lora_core.errors import (
        AdapterError,
        AdapterNotFound,
        CorruptAdapter,
        InvalidAdapter,
        NotDescribed,
        SlotsFull,
        UnsupportedAdapter,
        UnsupportedBaseModel,
    )
    from lora_core.format.arrow_format import LoRAFormat
    from lora_core.linear import LoRALinear
    from lora_core.manager import LoRAManager
    from lora_core.manifest import AdapterManifest
    from lora_core.router import LoRARouter
    from lora_core.sampling import SamplingParams
    from lora_core.validation import CheckedAdapter, Manifest, check_card
    from lora_core.weights import LoRAWeights

_HOMES = {
    "AdapterManifest": "manifest",
    "LoRAFormat": "format.arrow_format",
    "LoRACard": "card",
    "LoRAWeights": "weights",
    "SamplingParams": "sampling",
    "SentenceEmbedder": "embedding",
    "ArrowEngine": "engine",
    "Request": "engine",
    "AdapterError": "errors",
    "AdapterNotFound": "errors",
    "CheckedAdapter": "validation",
    "CorruptAdapter": "errors",
    "InvalidAdapter": "errors",
    "NotDescribed": "errors",
    "SlotsFull": "errors",
    "UnsupportedAdapter": "errors",
    "UnsupportedBaseModel": "errors",
    "LoRALinear": "linear",
    "LoRAManager": "manager",
    "LoRARouter": "router",
    "Manifest": "validation",
    "check_card": "validation",
}

__all__ = [
    "AdapterError",
    "AdapterManifest",
    "AdapterNotFound",
    "ArrowEngine",
    "CheckedAdapter",
    "CorruptAdapter",
    "InvalidAdapter",
    "LoRACard",
    "LoRAFormat",
    "LoRALinear",
    "LoRAManager",
    "LoRARouter",
    "LoRAWeights",
    "Manifest",
    "NotDescribed",
    "Request",
    "SamplingParams",
    "SentenceEmbedder",
    "SlotsFull",
    "UnsupportedAdapter",
    "UnsupportedBaseModel",
    "check_card",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lora_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lora_core.{home}"), name)


def __dir__() -> list[str]:
    return __all__
