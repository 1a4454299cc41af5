"""An answer as a GenerationRecorded, where the policies of all domains that took part in it permit one. Pure."""

from datetime import UTC, datetime

from fleet_events.v1 import (
    BaseModel,
    GenerationRecorded,
    RecordAnswers,
    Sampling,
    Turn,
    WeightedAdapter,
)
from lora_core.sampling import SamplingParams
from services.inference.answer_task import AnswerTask
from services.inference.catalogue import Catalogue
from services.inference.chosen import Chosen
from services.inference.recording.consent import Consents, is_sampled
from services.inference.recording.exchange import PendingAnswer
from services.inference.resolution import SET, WEIGHT


def owner_and_parties(chosen: Chosen, catalogue: Catalogue, beside: str = "") -> tuple[str, frozenset[str]]:
    """Whose data an answer is, and all domains that took part: those of its adapters and of what was requested.

    An answer of the base model is the data of the domain that was requested and fell back to it, or of the one that
    answers beside it in a comparison (`beside`); else it is nobody's, which is an empty domain.
    """
    answering = [one.domain for one in chosen.adapters]
    requested = _domains_of(chosen.requested, catalogue) if chosen.fallback else []
    owners = [chosen.adapter.domain] if chosen.adapter else requested or [beside]
    return owners[0], frozenset((*answering, *requested, owners[0]))


def pending_answer(
    task: AnswerTask, answer: str, finish_reason: str, catalogue: Catalogue, consents: Consents
) -> PendingAnswer | None:
    """The answer, with personal data still in it; None where it may not be recorded or is blank."""
    exchange, chosen = task.exchange, task.chosen
    # A NUL is text that nothing behind the bus can hold.
    if exchange is None or not answer.strip() or "\0" in answer:
        return None
    domain, answering = owner_and_parties(chosen, catalogue, exchange.beside)
    parties = answering | exchange.earlier
    consent = consents.strictest(domain, parties)
    if not domain or consent.record_answers is RecordAnswers.NONE:
        return None
    if consent.record_fraction and not is_sampled(exchange.request_id, consent.record_fraction):
        return None
    event = GenerationRecorded(
        generation_id=task.generation_id,
        domain=domain,
        requested_model=chosen.requested,
        adapter_id=chosen.adapter_id,
        artifact_sha256=chosen.adapter.artifact.blob.sha256 if chosen.adapter else "",
        mix=tuple(
            WeightedAdapter(adapter_id=one.adapter_id, artifact_sha256=one.artifact.blob.sha256, weight=weight)
            for one, weight in chosen.mix
        ),
        base_model=BaseModel(name=chosen.base.name, revision=chosen.base.revision),
        sampling=_sampling(task.sampling, task.stop),
        routed=chosen.routed.reason if chosen.routed else "",
        fallback=chosen.fallback.reason if chosen.fallback else "",
        messages=tuple(Turn(role=role, content=text) for role, text in exchange.turns),
        answer=answer,
        finish_reason=finish_reason,
        consent=consent,
        subject=exchange.subject,
        caller=task.caller.subject,
        comparison_id=exchange.comparison_id,
        answered_at=datetime.now(UTC),
        rollout=chosen.part,
    )
    return PendingAnswer(event, parties)


def _domains_of(requested: str, catalogue: Catalogue) -> list[str]:
    """Domains of the family, version or set that a request named, in its order."""
    found = []
    for part in requested.split(SET):
        name = part.strip().partition(WEIGHT)[0]
        family, at, version = name.partition("@")
        named = f"{family}-v{version}" if at else name
        record = catalogue.records.get(named) or next(
            (one for one in catalogue.records.values() if one.family == named), None
        )
        if record is not None:
            found.append(record.domain)
    return found


def _sampling(sampling: SamplingParams, stop: tuple[str, ...]) -> Sampling:
    return Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=sampling.seed,
        max_tokens=sampling.max_tokens,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop=stop,
    )
