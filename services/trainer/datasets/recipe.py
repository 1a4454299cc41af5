"""A recipe: everything that somebody says of a data set they want built."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet_events.v1 import DomainName
from services.trainer.datasets.filters import FilterRecipe
from services.trainer.datasets.generators.recipe import GeneratorRecipe
from services.trainer.datasets.presets import preset_of
from services.trainer.datasets.records import Kind
from services.trainer.datasets.sources import AnySource

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
MAX_SOURCES = 20


class DataRecipe(BaseModel):
    """The body of `POST /v1/datasets`.

    `adapter_type` takes kind, sources, filters, generators and validation part from its preset
    (`services/trainer/datasets/presets.py`), wherever the recipe leaves them out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: DomainName
    name: Annotated[str, Field(pattern=NAME)]
    adapter_type: Annotated[str, Field(max_length=100)] = ""
    kind: Kind = Kind.COMPLETION
    sources: Annotated[tuple[AnySource, ...], Field(min_length=1, max_length=MAX_SOURCES)]
    filters: FilterRecipe = FilterRecipe()
    generators: GeneratorRecipe = GeneratorRecipe()
    validation_part: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Part of the prompts that validate and are never trained on."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Draws the validating prompts."""
    licence: Annotated[str, Field(max_length=200)] = ""
    """Under which terms the data may be used, best as an SPDX identifier."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: object) -> object:
        if not isinstance(values, dict) or not isinstance(adapter_type := values.get("adapter_type"), str):
            return values
        return {**preset_of(adapter_type), **values} if adapter_type else values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind is Kind.CONVERSATION and any(one.kind == "live" for one in self.sources):
            raise ValueError("sources: 'live' has no conversations, expected another source or another kind")
        return self
