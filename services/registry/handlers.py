"""Events that the registry consumes. Each function writes in one transaction with its inbox row and outbox rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from fleet_events import v1
from fleet_kit.cloudevents import Envelope
from fleet_kit.errors import NotYet, Refused
from fleet_kit.handlers import Delivered, Handlers
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.registry import answered, domain, registration, repository
from services.registry.base_models import BaseModelUnavailable, WrongBaseModel
from services.registry.checkpoint import CannotServe
from services.registry.family import Adapter
from services.registry.parts import RegistryService
from services.registry.rollout import counting
from services.registry.scored import evaluation_of
from services.registry.store import credentials, forgotten, migrations, preferences, usage, versions
from services.registry.transition import Act, AuditEntry, JobReused, NotTheArtifact, RegistryError, UnknownAdapter
from services.registry.updating.recommend import recommend_update
from services.registry.version import InvalidVersion

handlers: Handlers[RegistryService] = Handlers("registry")

BASE_MODEL_SECONDS = 10.0
"""Until a finished training is tried again whose base model an operator has to mend."""


def _registration(event: v1.TrainingCompleted, _envelope: Envelope) -> str:
    return f"registration:{event.job_id}"


async def _give_up_registration(
    event: v1.TrainingCompleted, reason: str, work: LeasedTask, _service: RegistryService
) -> None:
    await _remember_refusal(event, work, Refused(reason))
    raise Refused(reason)


@handlers.long(v1.TrainingCompleted, lease=_registration, give_up=_give_up_registration)
async def register_trained(event: v1.TrainingCompleted, work: LeasedTask, service: RegistryService) -> None:
    """Open what was trained and register it; what cannot serve is refused, visibly (GET /v1/refusals).

    Files are fetched and opened under the lease of their job alone: that takes as long as they are large, and no
    transaction is to stay open meanwhile.
    """
    async with work.transaction() as tx:
        known = await versions.find_job(tx.connection, event.job_id)
    if known is not None and known.artifact_sha256 == event.artifact.blob.sha256:
        async with work.finish():
            return
    try:
        if known is not None:
            raise JobReused(event.job_id, known.adapter_id)
        submission = await registration.examine(event, service)
        async with work.finish() as tx:
            family = await repository.lock(tx, submission.domain, submission.method)
            why = f"training job {event.job_id}" + (f": {event.reason}" if event.reason else "")
            change = domain.register(family, submission, Act(submission.by, _now(), why))
            await repository.save(tx, family, change)
            await versions.remove_refusals(tx.connection, event.job_id)
            await migrations.registered(tx.connection, event.job_id, change.adapter_id)
    except BaseModelUnavailable as error:
        raise NotYet(str(error), after=BASE_MODEL_SECONDS) from error
    except (CannotServe, WrongBaseModel, InvalidVersion, RegistryError) as error:
        await _remember_refusal(event, work, error)
        raise Refused(str(error)) from error


@handlers.on(v1.TrainingFailed)
async def end_failed_migration(event: v1.TrainingFailed, tx: Transaction, _service: RegistryService) -> None:
    """A migration whose training failed has failed."""
    await migrations.failed(tx.connection, event.job_id, event.reason)


@handlers.on(v1.TrainingCancelled)
async def end_cancelled_migration(event: v1.TrainingCancelled, tx: Transaction, _service: RegistryService) -> None:
    """A migration whose training was cancelled has failed."""
    await migrations.failed(tx.connection, event.job_id, f"cancelled by {event.by}: {event.reason}")


@handlers.on(v1.EvaluationScored)
async def take_score(event: v1.EvaluationScored, tx: Transaction, _service: RegistryService) -> None:
    """Hold a score against the domain's policy: approve, ask a human, or reject."""
    adapter = await _named(tx, event.adapter_id, event.domain)
    evaluation = evaluation_of(event, _when(tx))
    family = await repository.lock(tx, adapter.submission.domain, adapter.submission.method)
    known = await versions.find_evaluation(tx.connection, event.evaluation_id)
    if known is not None:
        kept, repeated = (
            (one.artifact_sha256, one.judgement.interval, one.judgement.regression) for one in (known, evaluation)
        )
        if kept != repeated:
            raise Refused(
                f"evaluation_id {event.evaluation_id!r} belongs to another score; publish a new score under a new id"
            )
        return
    policy = await versions.find_policy(tx.connection, event.domain)
    try:
        change = domain.score(family, event.adapter_id, evaluation, policy, _now())
    except RegistryError as error:
        raise Refused(str(error)) from error
    await repository.save(tx, family, change)
    await recommend_update(tx, change.family, policy, _now())


@handlers.on(v1.EvaluationFailed)
async def ask_for_review(event: v1.EvaluationFailed, tx: Transaction, _service: RegistryService) -> None:
    """A version that cannot be judged is left to a human instead of waiting for ever."""
    adapter = await versions.find_adapter(tx.connection, event.adapter_id)
    if adapter is None:
        return  # an evaluation was requested of what is not registered
    family = await repository.lock(tx, adapter.submission.domain, adapter.submission.method)
    change = domain.could_not_judge(family, event.adapter_id, event.evaluation_id, event.reason, _now())
    await repository.save(tx, family, change)


async def _count_answers(
    events: Sequence[Delivered[v1.GenerationCompleted]], tx: Transaction, _service: RegistryService
) -> None:
    await answered.count(events, tx)
    for one in events:
        tx.cause = one.envelope
        await counting.take_answer(tx, one.event, _when(tx), _now())


@handlers.on(v1.GenerationCompleted, many=_count_answers)
async def count_answer(event: v1.GenerationCompleted, tx: Transaction, _service: RegistryService) -> None:
    """Count an answer for its version and for the rollout that it has a part in, and keep who gave it."""
    await _count_answers([Delivered(event, tx.envelope)], tx, _service)


@handlers.on(v1.GenerationFailed)
async def count_failure(event: v1.GenerationFailed, tx: Transaction, _service: RegistryService) -> None:
    """Count a request of a rollout that got no answer."""
    await _named(tx, event.adapter_id, event.domain)
    await counting.take_failure(tx, event, _now())


@handlers.on(v1.AnswerJudged)
async def count_score(event: v1.AnswerJudged, tx: Transaction, _service: RegistryService) -> None:
    """Count what the judge gave an answer of a rollout."""
    await _named(tx, event.adapter_id, event.domain)
    await counting.take_score(tx, event, _now())


@handlers.on(v1.FeedbackRecorded)
async def rate_answer(event: v1.FeedbackRecorded, tx: Transaction, _service: RegistryService) -> None:
    """Keep a rating of an answer, and which other answer it was preferred to; a person's newer opinion replaces it."""
    if event.adapter_id:
        await _named(tx, event.adapter_id, event.domain)
    if await _is_forgotten(tx, event.generation_id):
        return
    if event.rating:
        await counting.take_rating(tx, event, _now())
        await usage.rate_answer(tx.connection, event, _when(tx))
    if event.preferred_over and event.preferred_over != event.generation_id:
        await counting.take_preference(tx, event, _now())
        await preferences.add_preference(tx.connection, event.generation_id, event.preferred_over, event.by, _when(tx))


@handlers.on(v1.SubjectForgotten)
async def forget_subject(event: v1.SubjectForgotten, tx: Transaction, _service: RegistryService) -> None:
    """Delete what is kept of a person's answers; mark the versions that learned from the person's records, and reject
    them where that is requested, at once or when they are replaced."""
    await forgotten.lock_forgotten(tx.connection)
    await forgotten.forget(tx.connection, event.erasure_id, event.generation_ids)
    deleted = await forgotten.delete_feedback(tx.connection, event.generation_ids)
    deleted += await forgotten.delete_preferences(tx.connection, event.generation_ids)
    deleted += await forgotten.delete_answers(tx.connection, event.generation_ids)
    marked: set[tuple[str, v1.Method]] = set()
    for adapter_id in event.adapter_ids:
        adapter = await versions.find_adapter(tx.connection, adapter_id)
        if adapter is None or event.domain not in (adapter.submission.domain, "*"):
            continue
        family = await repository.lock(tx, adapter.submission.domain, adapter.submission.method)
        act = Act(event.by, _now(), f"erasure {event.erasure_id}: it learned from records that are erased")
        if await forgotten.mark_learned(
            tx.connection, adapter_id, event.erasure_id, retire_when_replaced=event.retire_when_replaced
        ):
            after: dict[str, object] = {"erasure_id": event.erasure_id}
            entry = AuditEntry(adapter_id, "learned_from_erased", act, {}, after, family.revision)
            await versions.add_audit(tx.connection, adapter.submission.domain, entry)
        if event.retire:
            await repository.save(tx, family, domain.reject(family, adapter_id, act))
        marked.add((family.domain, family.method))
    for named in sorted(marked):  # a version without the records may serve already
        await repository.retire_replaced(tx, await repository.lock(tx, *named))
    erased = v1.SubjectErased(erasure_id=event.erasure_id, service="registry", deleted=deleted, part=event.part)
    await tx.emit(erased, entity=event.erasure_id)


@handlers.on(v1.ApiKeysUsed)
async def note_key_uses(event: v1.ApiKeysUsed, tx: Transaction, _service: RegistryService) -> None:
    """Keep when API keys were last used."""
    await credentials.note_uses(tx.connection, event.uses)


@handlers.on(v1.AdapterLoaded)
async def note_replica(event: v1.AdapterLoaded, tx: Transaction, _service: RegistryService) -> None:
    """Keep which replicas hold the version, the last link but one of the digest chain."""
    adapter = await _named(tx, event.adapter_id, event.domain)
    _same_bytes(adapter, event.artifact_sha256, f"the load on {event.replica}")
    await usage.note_replica(tx.connection, event, _when(tx))


@handlers.on(v1.AdapterUnloaded)
async def note_unloaded(event: v1.AdapterUnloaded, tx: Transaction, _service: RegistryService) -> None:
    """Keep that a replica gave the version up."""
    await _named(tx, event.adapter_id, event.domain)
    await usage.note_unloaded(tx.connection, event, _when(tx))


async def _is_forgotten(tx: Transaction, generation_id: str) -> bool:
    await forgotten.lock_kept(tx.connection)
    return await forgotten.is_forgotten(tx.connection, generation_id)


async def _named(tx: Transaction, adapter_id: str, domain_name: str) -> Adapter:
    """The adapter that an event is about; refused when it is unknown or of another domain."""
    adapter = await _registered(tx, adapter_id)
    if adapter.submission.domain != domain_name:
        raise Refused(f"domain is {domain_name!r}, but {adapter_id} belongs to {adapter.submission.domain!r}")
    return adapter


async def _registered(tx: Transaction, adapter_id: str) -> Adapter:
    adapter = await versions.find_adapter(tx.connection, adapter_id)
    if adapter is None:
        raise Refused(str(UnknownAdapter(adapter_id)))
    return adapter


def _same_bytes(adapter: Adapter, sha256: str, what: str) -> None:
    if sha256 != adapter.artifact_sha256:
        raise Refused(str(NotTheArtifact(adapter, sha256, what)))


async def _remember_refusal(event: v1.TrainingCompleted, work: LeasedTask, error: Exception) -> None:
    async with work.transaction() as tx:
        await versions.add_refusal(
            tx.connection,
            event_id=work.envelope.id,
            job_id=event.job_id,
            domain=event.domain,
            artifact_sha256=event.artifact.blob.sha256,
            field=str(getattr(error, "field", "")),
            reason=str(error),
        )
        await migrations.failed(tx.connection, event.job_id, str(error))


def _when(tx: Transaction) -> datetime:
    """When the event happened; order between subjects is not that of arrival.

    A time in the future would outlast every later event: it is now.
    """
    now = _now()
    return now if tx.cause is None else min(tx.cause.time, now)


def _now() -> datetime:
    return datetime.now(UTC)
