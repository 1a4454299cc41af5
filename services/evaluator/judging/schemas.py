"""What the evaluator takes and answers over HTTP about people's scores and their agreement with judges."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class NewLabel(BaseModel):
    """A person's score of one answer."""

    model_config = ConfigDict(extra="forbid")

    score: float = Field(ge=0, le=100, allow_inf_nan=False)
    """On the judge's scale."""
    note: str = Field(default="", max_length=4000)


class Stored(BaseModel):
    evaluation_id: str
    sample_id: str
    labelled_by: str
    score: float


class Bounds(BaseModel):
    """An estimate with its 95 % interval."""

    model_config = ConfigDict(from_attributes=True)

    value: float
    low: float
    high: float


class Agrees(BaseModel):
    """A judge beside people, over the answers of a domain that both scored; null where these are too few to tell."""

    judge: str
    domain: str
    answers: int
    alpha: Bounds | None
    """Krippendorff's alpha: 1 is the same scores, 0 what chance gives."""
    pairwise: Bounds | None
    """Share of the pairs that people order (10 points apart) in the same order."""
    bias: float | None
    """Mean of judge minus people, in points."""
    length_bias: float | None
    """Correlation of that with the answer's length in words."""
