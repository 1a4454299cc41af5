"""What POST /v1/feedback takes of answers that were routed wrongly."""

import pytest
from pydantic import ValidationError

from services.inference.http.feedback_body import FeedbackRequest


def test_that_an_answer_was_routed_wrongly_is_feedback_by_itself() -> None:
    assert FeedbackRequest(generation_id="gen-x", routed_wrongly=True).right_family is None
    assert FeedbackRequest(generation_id="gen-x", routed_wrongly=True, right_family="tax-lora").rating is None


@pytest.mark.parametrize("fields", [{"rating": 1}, {"rating": 1, "routed_wrongly": False}])
def test_a_right_family_of_what_was_not_routed_wrongly_is_refused_by_its_name(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        FeedbackRequest.model_validate({"generation_id": "gen-x", "right_family": "tax-lora", **fields})
    assert [one["loc"] for one in refused.value.errors()] == [("right_family",)]


def test_a_comparison_has_no_single_route_that_was_wrong() -> None:
    with pytest.raises(ValidationError, match="routed_wrongly belongs to generation_id"):
        FeedbackRequest(comparison_id="cmp-x", preferred=0, routed_wrongly=True)
