"""The base models of this process, each with all that serves it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fleet_events.v1 import Adapter
from lora_core.generation_settings import GenerationSettings
from services.inference.backend import Backend
from services.inference.resolution import Base
from services.inference.slots.adapters import Adapters
from services.inference.tokenizer import Vocabulary

if TYPE_CHECKING:
    from lora_core.prefix_cache import PrefixCache


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request, in tokens."""

    max_prompt_tokens: int
    max_completion_tokens: int
    default_completion_tokens: int
    context: int
    """What the model itself can take, prompt and answer together."""


@dataclass(frozen=True, slots=True)
class ServedBaseModel:
    """One base model with what all its adapters share."""

    base: Base
    vocabulary: Vocabulary
    adapters: Adapters
    backend: Backend
    limits: Limits
    trim: Callable[[], Awaitable[None]] | None = None
    """Gives the memory of empty slots back to the system; None where they are not in this process."""
    own: GenerationSettings = field(default_factory=GenerationSettings)
    """What the model's makers set, for what a request leaves open."""
    prefixes: "PrefixCache | None" = None
    """Beginnings of prompts that are kept; None where there are none, or not in this process."""


@dataclass(frozen=True)
class BaseModels:
    """The base models of this process, of different names and revisions; the first is the default."""

    all: Sequence[ServedBaseModel]

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for base in self.bases:
            if (other := names.setdefault(base.revision, base.name)) != base.name:
                raise ValueError(f"base models {other!r} and {base.name!r} are the same model (identical revision)")

    @property
    def prefixes(self) -> dict[str, object]:
        """Of each base model that keeps beginnings of prompts how many of the tokens were found, and what is held."""
        stats = {one.base.name: one.prefixes.stats for one in self.all if one.prefixes is not None}
        return {
            name: {"hit_rate": round(own.found / max(1, own.wanted), 4), "tokens": own.wanted, "bytes": own.bytes}
            for name, own in stats.items()
        }

    @cached_property
    def bases(self) -> tuple[Base, ...]:
        return tuple(one.base for one in self.all)

    def of(self, base: Base) -> ServedBaseModel:
        """What serves a base model of this process."""
        return next(one for one in self.all if one.base == base)

    def of_adapter(self, adapter: Adapter) -> ServedBaseModel | None:
        """What serves an adapter, if its base model is here."""
        return next((one for one in self.all if one.base.revision == adapter.base_model.revision), None)


Hosted, Hosting = ServedBaseModel, BaseModels
"""Former names."""
