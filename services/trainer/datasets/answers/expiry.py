"""Feedback that waits for an answer in vain, and answers that have been kept long enough."""

from datetime import timedelta

from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.store import answer_feedback, answers

_AT_ONCE = 1000


async def expire_answers(service: DatasetContext) -> int:
    """Give up feedback whose answer has not come, and delete answers and feedback beyond their days.

    The live records that they made stay. Returns how many rows changed.
    """
    settings, changed = service.settings, 0
    async with service.transaction() as tx:
        changed += await answer_feedback.give_up_waiting(
            tx.connection,
            timedelta(minutes=settings.feedback_wait_minutes),
            settings.waiting_feedback,
        )
    kept = timedelta(days=settings.answer_days)
    for remove in (answers.remove_old_answers, answer_feedback.remove_old_feedback):
        while True:
            async with service.transaction() as tx:
                removed = await remove(tx.connection, kept, _AT_ONCE)
            changed += removed
            if removed < _AT_ONCE:
                break
    return changed
