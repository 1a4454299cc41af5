"""What the evaluator takes and answers over HTTP about golden data sets."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from fleet_events.v1 import DomainName
from services.evaluator.golden.samples import ContextUse

NAME = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"


class NewDataset(BaseModel):
    """A golden data set version to create."""

    model_config = ConfigDict(extra="forbid")

    dataset_id: str = Field(pattern=NAME)
    domain: DomainName
    version: str = "1.0.0"
    description: str = Field(default="", max_length=4000)
    context_use: ContextUse = "note"
    """`prompt` puts a sample's context before its prompt; `note` keeps it for people and judges."""


class DatasetVersion(BaseModel):
    """A version as the API shows it. sha256 is null until an evaluation has frozen it."""

    model_config = ConfigDict(from_attributes=True)

    dataset_id: str
    version: str
    domain: str
    description: str
    context_use: ContextUse
    created_by: str
    created_at: datetime
    frozen: bool
    sha256: str | None
    total_samples: int
    erased_by: list[str] = []
    """Erasures that took samples out of it since it was frozen: nothing is judged with it any more."""


class DatasetDetail(DatasetVersion):
    """A version with its siblings and what it holds."""

    versions: list[str]
    by_difficulty: dict[str, int]


class Changed(DatasetVersion):
    """What an import led to. `opened` names the new version if the former one was frozen."""

    changed: bool
    opened: str | None
    read: int
    forgotten: int = 0
    """Samples about people who are forgotten, left out."""


class Datasets(BaseModel):
    datasets: list[DatasetVersion]
