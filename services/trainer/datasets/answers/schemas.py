"""What the HTTP answers about recorded answers and feedback on them look like."""

from datetime import datetime
from typing import Any, Self

from services.trainer.datasets.answers.answer import AnswerFeedback, RecordedAnswer, State
from services.trainer.schemas import View


class TurnView(View):
    """One turn of a conversation."""

    role: str
    content: str


class AnswerView(View):
    """A recorded answer: its conversation, the policy that permitted it, and what was masked in it."""

    generation_id: str
    domain: str
    adapter_id: str
    messages: list[TurnView]
    answer: str
    consent: dict[str, Any]
    masked: list[str]
    subject: str
    comparison_id: str
    answered_at: datetime

    @classmethod
    def of(cls, answer: RecordedAnswer) -> Self:
        return cls(
            generation_id=answer.generation_id,
            domain=answer.domain,
            adapter_id=answer.adapter_id,
            messages=[TurnView(role=role, content=content) for role, content in answer.turns],
            answer=answer.answer,
            consent=answer.consent,
            masked=list(answer.masked),
            subject=answer.subject,
            comparison_id=answer.comparison_id,
            answered_at=answer.answered_at,
        )


class AnswerFeedbackView(View):
    """Feedback on an answer and what became of it; `reason` tells why it is unusable."""

    generation_id: str
    domain: str
    rater: str
    rating: int | None
    correction: str
    preferred_over: str
    state: State
    reason: str
    given_at: datetime

    @classmethod
    def of(cls, given: AnswerFeedback) -> Self:
        return cls(
            generation_id=given.generation_id,
            domain=given.domain,
            rater=given.rater,
            rating=given.rating,
            correction=given.correction,
            preferred_over=given.preferred_over,
            state=given.state,
            reason=given.reason,
            given_at=given.given_at,
        )
