"""What the evaluator takes and answers over HTTP about people's scores and their agreement with judges."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from fleet_events.v1 import DomainName


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


class PairsAgree(BaseModel):
    """What a judge prefers beside what people do, over the pairs of which they scored both answers, 10 points apart."""

    pairs: int
    rate: Bounds
    """Fraction of them with the same preference; a tie counts half."""
    consistency: float
    """Fraction of the labelled pairs with the same outcome in both orders."""


class Agrees(BaseModel):
    """A judge beside people, over the answers of a domain that both scored; null where these are too few."""

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
    preferences: PairsAgree | None
    """Of pairs of versions' answers; null where the judge compares none or too few are labelled."""


class NewCalibration(BaseModel):
    """Which judge's scores to fit, in which domain."""

    model_config = ConfigDict(extra="forbid")

    judge: str = Field(min_length=1, max_length=200)
    """As evaluations name it; members of a panel are in the evaluation's `judging.parameters`."""
    domain: DomainName


class Calibrated(BaseModel):
    """People's mean score of an answer is intercept + slope × the judge's, on 0–100; panels use it from now on."""

    judge: str
    domain: str
    intercept: float
    slope: float
    answers: int
    pairs: int
    """Compared pairs that people order: what the judge's vote on pairs weighs follows from these."""
    pairs_agreed: float
    """Of these, in people's order; ties half."""
