"""`GenerationSettings`: how a base model's makers want its tokens drawn."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Of the model's `generation_config.json`; None where it has no value.

    All else that transformers' `generate` knows (beams, n-gram bans, suppressed and forced tokens) is left aside.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    @classmethod
    def of(cls, config: "GenerationConfig | None") -> Self:
        """Of a loaded configuration, whose sampling settings count although it does not ask for sampling."""
        return cls(**{name: getattr(config, name, None) for name in cls.__dataclass_fields__})
