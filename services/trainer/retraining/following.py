"""One training for one new revision of the base model, where both the domain's rules and the registry follow it.

The registry requests a migration (policy `follow_base_model`), the rules a training of their own (`new_base_model`).
The first of the two answers the cause, which the trainer's database holds once: a migration that comes first is kept as
the firing that answered it, one that comes second is failed with the name of the job.
"""

from datetime import UTC, datetime

from fleet_events.v1 import RetrainingTrigger, TrainingRequested
from fleet_kit.transaction import Transaction
from services.trainer.retraining.context import RetrainingContext
from services.trainer.retraining.decision import Cause, new_base_model_key
from services.trainer.retraining.observation import family_of
from services.trainer.retraining.store import firings, rules
from services.trainer.retraining.store.firings import Firing


async def trained_by(request: TrainingRequested, tx: Transaction, service: RetrainingContext) -> str:
    """The job that the rules requested for the new revision which this migration follows; empty for none.

    Until the transaction ends the rules of the domain are not evaluated.
    """
    if not await _follows_as_rules_do(request, tx):
        return ""
    found = await firings.answered_by(tx.connection, request.domain, _key(service))
    return "" if found == request.job_id else found


async def answer(request: TrainingRequested, tx: Transaction, service: RetrainingContext) -> None:
    """Keep an accepted migration as what answered the cause, so that the rules request no second training for it."""
    if not await _follows_as_rules_do(request, tx):
        return
    if await firings.answered_by(tx.connection, request.domain, _key(service)):
        return
    cause = Cause(RetrainingTrigger.NEW_BASE_MODEL, _key(service), request.reason)
    firing = Firing(
        job_id=request.job_id,
        domain=request.domain,
        active_adapter="",
        triggers=(cause.trigger,),
        reason=request.reason,
        planned_steps=0,
        fired_at=datetime.now(UTC),
    )
    await firings.add_firing(tx.connection, firing, (cause,))
    await firings.add_causes(tx.connection, firing, (cause,))


async def _follows_as_rules_do(request: TrainingRequested, tx: Transaction) -> bool:
    """Whether a request follows the base model, and the rules of its domain do so for the same family."""
    if RetrainingTrigger.NEW_BASE_MODEL not in request.triggers or not request.job_id:
        return False
    await rules.lock_domain(tx.connection, request.domain)
    stored = await rules.find(tx.connection, request.domain)
    if stored is None or not stored.rules.enabled or not stored.rules.new_base_model:
        return False
    if await firings.is_firing(tx.connection, request.job_id):
        return False  # the rules requested it themselves
    return family_of(stored.rules.request(stored.domain)) == family_of(request)


def _key(service: RetrainingContext) -> str:
    return new_base_model_key(service.parts.checks.base.revision)
