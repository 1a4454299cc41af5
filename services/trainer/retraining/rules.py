"""What a domain sets: which triggers are on, what they may cost, and what is trained."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from fleet_events import v1
from fleet_events.v1 import Objective
from services.trainer.retraining.schedule import check_schedule

GOOD = 4.0
"""Rating from which an answer is fine-tuned on where the rules set none."""
_SET_HERE = (
    "job_id",
    "domain",
    "dataset_id",
    "version",
    "requested_by",
    "base_model",
    "continue_from",
    "distil_from",
    "reason",
    "triggers",
)
"""Fields of a training request that the rules fill in, or that would make every retraining the same."""


class _Part(BaseModel):
    """A name that does not exist is a fault: most likely it is misspelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NewSamples(_Part):
    """So many usable samples (preferences, rankings) are new to the active version."""

    at_least: Annotated[int, Field(ge=1, le=10_000_000)]


class RatingTrend(_Part):
    """The active version's ratings (1 to 5) have fallen.

    `expected` is their mean as it should be; None takes that of the version's first `reference` ratings, in which
    no fall is looked for. While the mean is not below `expected` - `fall` / 2, the expected number of ratings between
    two false alarms is at least `between_false_alarms`.
    """

    fall: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    between_false_alarms: Annotated[int, Field(ge=20, le=10_000_000)] = 1_000
    expected: Annotated[float, Field(ge=1, le=5)] | None = None
    reference: Annotated[int, Field(ge=10, le=10_000)] = 50


class Drift(_Part):
    """Recorded prompts are farther from the active version's training prompts than held-out training prompts are.

    While both are alike, the expected number of prompts between two false alarms is at least `between_false_alarms`.
    """

    between_false_alarms: Annotated[int, Field(ge=20, le=10_000_000)] = 1_000


class Budget(_Part):
    """What the domain's rules may spend in any 24 hours.

    `steps_a_day` counts planned optimizer steps, `tokens_a_day` tokens: of a job that has ended those that it trained
    on, of any other those that are planned.
    """

    jobs_a_day: Annotated[int, Field(ge=1, le=1_000)] = 1
    steps_a_day: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    tokens_a_day: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = None


class RetrainingRules(_Part):
    """A domain's rules, the body of PUT /v1/retraining/{domain}. A trigger that is None (or false) is off.

    `minimum_new_samples` is what every trigger but a new base model and an erasure waits for: without new data the same
    training would come out again. `training` is the request as over POST /v1/jobs, without what the rules fill in.
    """

    enabled: bool = True
    new_samples: NewSamples | None = None
    rating_trend: RatingTrend | None = None
    drift: Drift | None = None
    schedule: Annotated[str, AfterValidator(check_schedule), Field(max_length=40)] | None = None
    new_base_model: bool = False
    after_erasure: bool = False
    """The active version learned from records that are erased: an adapter is begun again without them."""
    minimum_new_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 1
    cooldown_hours: Annotated[float, Field(ge=0, le=8_784, allow_inf_nan=False)] = 6.0
    budget: Budget = Budget()
    from_active: bool = True
    """Whether the active version is trained further; false begins a new adapter each time."""
    training: dict[str, object] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        if given := [name for name in _SET_HERE if _names(self.training, name)]:
            raise ValueError(f"training.{given[0]}: retraining rules set this themselves, expected no value")
        return self

    def request_body(self, domain: str) -> dict[str, object]:
        """The body of the training request that the rules stand for, without what is known at a firing alone.

        Fine-tuning takes good answers and corrections: samples rated `GOOD` at least, and unrated ones.
        """
        tunes = self.training.get("objective") in (None, "", Objective.SFT)
        good = {"min_rating": GOOD} if tunes and not _names(self.training, "min_rating") else {}
        return {**good, **self.training, "domain": domain}

    def request(self, domain: str) -> v1.TrainingRequested:
        """The same as a request; raises pydantic's ValidationError for a body that none can be read from."""
        return v1.TrainingRequested.model_validate(self.request_body(domain))


def _names(body: dict[str, object], field: str) -> bool:
    """Whether a body has a field in one of its two spellings."""
    return field in body or to_camel(field) in body
