"""The data card: what a version of a data set is made of, as JSON beside its Parquet file."""

from pydantic import BaseModel, ConfigDict

from services.trainer.datasets.filters import FilterRecipe, FilterReport
from services.trainer.datasets.generators import GenerationReport, GeneratorRecipe
from services.trainer.datasets.records import Kind


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Unusable(_Frozen):
    """A row of a source that makes no record."""

    place: str
    """File and row, counted from 1."""
    reason: str


class SourceCard(_Frozen):
    """What one source gave. `described` is the source as the recipe names it, without credentials."""

    described: dict[str, object]
    rows: int
    records: int
    unusable: int
    forgotten: int = 0
    """Records about people who are forgotten, left out."""
    examples: tuple[Unusable, ...]
    """The first unusable rows."""


class SplitCard(_Frozen):
    """How records were divided: by a digest of seed and prompt, so that a prompt is on one side only."""

    validation_part: float
    seed: int
    train: int
    validation: int
    synthetic_left_out: int
    """Synthetic records of a prompt that validates."""


class RatingCard(_Frozen):
    """How many records carry a rating, 0 to 5, and their mean."""

    rated: int
    mean: float | None


class DataCard(_Frozen):
    """Everything that is known of a data set. It has no dates: the same recipe over the same data gives the same card.

    `repeated` counts records that were left out since an equal one is there, before the filters; `origins` how many
    records come from where (the 50 most frequent); `environment` the versions of the libraries that read and wrote.
    """

    dataset_id: str
    domain: str
    name: str
    kind: Kind
    licence: str
    adapter_type: str
    samples: int
    synthetic: int
    repeated: int
    origins: dict[str, int]
    split: SplitCard
    ratings: RatingCard
    sources: tuple[SourceCard, ...]
    filters: FilterRecipe
    filtered: FilterReport
    generators: GeneratorRecipe
    generated: GenerationReport
    """What each generator made, before it was filtered."""
    generated_filtered: FilterReport
    """What the same filters did to those."""
    environment: dict[str, str]
