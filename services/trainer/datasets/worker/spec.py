"""What the building subprocess takes and what it answers: one JSON file in, one JSON line out. Imports no pyarrow."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from services.trainer.datasets.build_fault import BuildFault, CannotBuild  # noqa: F401 - CannotBuild's former place
from services.trainer.datasets.columns import Columns
from services.trainer.datasets.dataset import Format
from services.trainer.datasets.filters import FilterRecipe
from services.trainer.datasets.generators.endpoint import Endpoint
from services.trainer.datasets.generators.recipe import GeneratorRecipe
from services.trainer.datasets.records import Kind


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class InputFile(_Frozen):
    """A file or folder on disk from which records are read. `name` is what faults call it."""

    path: Path
    format: Format
    name: str


class Input(_Frozen):
    """What one source gave: files, and how records are read from their rows.

    `described` is what the card has of the source. `unusable` is what a row that makes no record does to the
    build; `field` names the source in faults, for example `sources.0`.
    """

    files: tuple[InputFile, ...]
    columns: Columns = Columns()
    origin: str
    unusable: Literal["refuse", "drop"]
    described: dict[str, object]
    field: str


class BuildSpec(_Frozen):
    """One run of the subprocess. `work` is an empty folder of its own."""

    domain: str
    name: str
    kind: Kind
    inputs: tuple[Input, ...]
    filters: FilterRecipe
    generators: GeneratorRecipe = GeneratorRecipe()
    endpoints: dict[str, Endpoint] = {}
    """Those that the generators name. Their tokens are in this file alone, which no other user may read."""
    golden: Path | None = None
    subject_key: str = ""
    """What digests of people's names are keyed with, as hexadecimal digits; in this file alone, as the tokens."""
    forgotten: frozenset[str] = frozenset()
    """Digests of the people whom no record may be about."""
    validation_part: float
    seed: int
    licence: str
    adapter_type: str = ""
    work: Path
    supervisor: int
    memory_bytes: int = 0
    """Memory that the subprocess may take for data; 0 takes what the machine gives."""
    source_bytes: int = 8 * 1024**3
    """What the rows of one file may hold together once they are decoded."""


class Built(_Frozen):
    """The data set lies on disk: its Parquet file and its card."""

    outcome: Literal["built"] = "built"
    dataset_id: str
    data: Path
    card: Path
    samples: int
    validation_samples: int


class Unbuildable(_Frozen):
    """No data set comes of this recipe; trying again changes nothing."""

    outcome: Literal["unbuildable"] = "unbuildable"
    faults: tuple[BuildFault, ...]


BuildOutcome = Annotated[Built | Unbuildable, Field(discriminator="outcome")]
outcome_adapter: TypeAdapter[BuildOutcome] = TypeAdapter(BuildOutcome)
