"""HTTP in: recorded answers, and what became of feedback on them. Scope `train`; only domains of the token."""

from fastapi import APIRouter

from fleet_events.v1 import DomainName
from fleet_kit.auth import Caller
from services.trainer.datasets.answers.answer import State
from services.trainer.datasets.answers.schemas import AnswerFeedbackView, AnswerView
from services.trainer.datasets.context import Datasets
from services.trainer.datasets.store import answer_feedback, answers
from services.trainer.http_access import Limit, Trains

router = APIRouter(prefix="/v1", tags=["data"])


@router.get("/answers", summary="Recorded answers, newest first")
async def list_answers(
    caller: Trains, trainer: Datasets, domain: DomainName | None = None, limit: Limit = 100
) -> dict[str, list[AnswerView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await answers.list_answers(connection, _domains(caller, domain), limit)
    return {"answers": [AnswerView.of(one) for one in found]}


@router.get("/feedback", summary="Feedback on answers and what became of it, newest first")
async def list_feedback(
    caller: Trains,
    trainer: Datasets,
    domain: DomainName | None = None,
    state: State | None = None,
    limit: Limit = 100,
) -> dict[str, list[AnswerFeedbackView]]:
    """`state=unusable` lists what cannot become data, each with the reason."""
    async with trainer.db.acquire(timeout=5) as connection:
        found = await answer_feedback.list_feedback(connection, _domains(caller, domain), state, limit)
    return {"feedback": [AnswerFeedbackView.of(one) for one in found]}


def _domains(caller: Caller, domain: str | None) -> list[str] | None:
    """The domain that is asked for, or all that the caller reaches (None: every one)."""
    if domain is not None:
        caller.reach(domain)
        return [domain]
    return caller.domain_filter
