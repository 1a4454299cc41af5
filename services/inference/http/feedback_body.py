"""Bodies of POST /v1/feedback."""

from typing import Annotated, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from services.inference.http.parameters import Body

GenerationId = Annotated[str, Field(min_length=1, max_length=500)]


class FeedbackRequest(Body):
    """What somebody thinks of an answer: rating, correction, preference, that it was routed wrongly; one or more."""

    generation_id: GenerationId | None = None
    """The `id` of the response, or the `generation_id` of one of several choices."""
    rating: int | None = Field(default=None, ge=1, le=5)
    comment: str = Field(default="", max_length=4000)
    correction: str | None = Field(default=None, min_length=1, max_length=50_000)
    """The answer that would have been right."""
    preferred_over: GenerationId | None = None
    """Another answer to the same prompt that this one is better than."""
    comparison_id: str | None = Field(default=None, min_length=1, max_length=1500)
    """`lorafleet.comparison_id` of a response with several choices, in place of `generation_id`."""
    preferred: Annotated[int, Field(ge=0, lt=128)] | GenerationId | None = None
    """The choice of that comparison that is better than all its others: its index or its `generation_id`."""
    subject: str | None = Field(default=None, min_length=1, max_length=512)
    """The person whose feedback it is, as the application names its users."""
    routed_wrongly: bool = False
    """Whether another adapter, or none, was to answer what `auto` routed."""
    right_family: str | None = Field(default=None, max_length=200)
    """With `routed_wrongly`: the family that was to answer; null or empty is no adapter of the answer's domain."""

    @field_validator("right_family")
    @classmethod
    def _is_of_what_was_routed_wrongly(cls, family: str | None, info: ValidationInfo) -> str | None:
        if family and not info.data.get("routed_wrongly"):
            raise PydanticCustomError("which", "belongs to an answer with routed_wrongly")
        return family

    @model_validator(mode="after")
    def _is_of_one_answer(self) -> Self:
        if (self.generation_id is None) == (self.comparison_id is None):
            raise PydanticCustomError("which", "expected generation_id, or comparison_id with preferred")
        if (self.comparison_id is None) != (self.preferred is None):
            raise PydanticCustomError("which", "comparison_id and preferred belong together")
        if self.comparison_id is not None and self.preferred_over is not None:
            raise PydanticCustomError("which", "preferred_over belongs to generation_id, preferred to comparison_id")
        if self.preferred_over is not None and self.preferred_over == self.generation_id:
            raise PydanticCustomError("which", "preferred_over names the same answer as generation_id")
        if self.comparison_id is not None and self.routed_wrongly:
            raise PydanticCustomError("which", "routed_wrongly belongs to generation_id")
        opinions = (self.rating, self.correction, self.preferred_over, self.preferred)
        if opinions == (None,) * 4 and not self.routed_wrongly:
            expected = "expected rating, correction, preferred_over, preferred or routed_wrongly"
            raise PydanticCustomError("nothing", expected)
        return self


class FeedbackAccepted(BaseModel):
    """On which answer, of which adapter (null: the base model), and what it is better than."""

    generation_id: str
    adapter_id: str | None
    rating: int | None
    preferred_over: list[str] = []
