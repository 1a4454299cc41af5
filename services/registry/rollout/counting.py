"""Events in: outcomes of answers go to their rollout's step, and the step is decided in the same transaction."""

from __future__ import annotations

from datetime import datetime

from fleet_events import v1
from fleet_events.v1 import Failure, RolloutArm, RolloutMetric
from fleet_kit.errors import Refused
from fleet_kit.transaction import Transaction
from services.registry import domain, repository
from services.registry.rollout import transitions, verdict
from services.registry.rollout.state import Rollout, State
from services.registry.rollout.verdict import Decision, rating_outcome, score_outcome
from services.registry.store import answers, rollouts, versions
from services.registry.store.rollouts import Part
from services.registry.transition import Act


async def take_answer(tx: Transaction, event: v1.GenerationCompleted, at: datetime, now: datetime) -> None:
    """Count an answer that has a part in a rollout. One that its caller cancelled counts for nothing."""
    if event.rollout is None or event.finish_reason == "cancelled":
        return
    rollout = await _rollout_of(tx, event.rollout, event.adapter_id)
    outcomes = {
        RolloutMetric.ERROR_RATE: 0.0,
        RolloutMetric.REFUSAL_RATE: float(event.completion_tokens == 0),
        RolloutMetric.LATENCY: float(event.latency_ms > rollout.rules.slow_ms),
    }
    part = _part(event.rollout)
    await rollouts.lock_answer(tx.connection, event.generation_id)
    if not await rollouts.add_part(tx.connection, event.generation_id, part, at):
        return
    await rollouts.count(tx.connection, part, outcomes)
    for rating in await rollouts.ratings_of(tx.connection, event.generation_id):
        await rollouts.count(tx.connection, part, {RolloutMetric.RATING: rating_outcome(rating)})
    await decide(tx, rollout, now)


async def take_failure(tx: Transaction, event: v1.GenerationFailed, now: datetime) -> None:
    """Count a request that got no answer from the version that it was given to."""
    rollout = await _rollout_of(tx, event.rollout, event.adapter_id)
    outcomes = {RolloutMetric.ERROR_RATE: 1.0}
    if event.failure is Failure.REFUSED:
        outcomes[RolloutMetric.REFUSAL_RATE] = 1.0
    await rollouts.count(tx.connection, _part(event.rollout), outcomes)
    await decide(tx, rollout, now)


async def take_rating(tx: Transaction, event: v1.FeedbackRecorded, now: datetime) -> None:
    """Count the first rating that a person gave an answer, if the answer had a part in a rollout."""
    await rollouts.lock_answer(tx.connection, event.generation_id)
    part = await rollouts.find_part(tx.connection, event.generation_id)
    if part is None or await rollouts.rated(tx.connection, event.generation_id, event.by):
        return  # an answer that is still to come counts the ratings that it finds
    await rollouts.count(tx.connection, part, {RolloutMetric.RATING: rating_outcome(event.rating)})
    rollout = await rollouts.find_rollout(tx.connection, part.rollout_id)
    if rollout is not None:
        await decide(tx, rollout, now)


async def take_preference(tx: Transaction, event: v1.FeedbackRecorded, now: datetime) -> None:
    """Count a person's first choice between an answer of the candidate and one of the incumbent.

    It may be of answers that the two gave to one prompt by request, so it needs no part in the rollout: it counts for
    the step at which it comes. One that names an answer which is not known here counts for nothing.
    """
    preferred = await versions.find_adapter(tx.connection, event.adapter_id)
    other = await answers.find_answer(tx.connection, event.preferred_over)
    if preferred is None or other is None or len(other.adapters) != 1:
        return
    rollout = await rollouts.find_running(tx.connection, preferred.submission.family)
    if rollout is None or await rollouts.compared(tx.connection, event.generation_id, event.preferred_over, event.by):
        return
    arms = {rollout.candidate_id: RolloutArm.CANDIDATE, rollout.incumbent_id: RolloutArm.INCUMBENT}
    if {event.adapter_id, other.adapters[0].adapter_id} != set(arms):
        return
    lost = float(arms[event.adapter_id] is RolloutArm.INCUMBENT)
    part = Part(rollout.rollout_id, rollout.step, RolloutArm.CANDIDATE)
    await rollouts.count(tx.connection, part, {RolloutMetric.PREFERENCE: lost})
    await decide(tx, rollout, now)


async def take_score(tx: Transaction, event: v1.AnswerJudged, now: datetime) -> None:
    """Count the first score of an answer. One that the judge could not score counts for nothing."""
    rollout = await _rollout_of(tx, event.rollout, event.adapter_id)
    if event.score is None or not rollout.rules.is_judged:
        return
    part = _part(event.rollout)
    if await rollouts.add_score(tx.connection, event.generation_id, part, event.score, event.judge):
        await rollouts.count(tx.connection, part, {RolloutMetric.JUDGE: score_outcome(event.score)})
        await decide(tx, rollout, now)


async def decide(tx: Transaction, rollout: Rollout, now: datetime) -> None:
    """Hold the rollout's step against its rules, and do what follows."""
    if rollout.state is not State.RUNNING:
        return
    counted = await rollouts.counted(tx.connection, rollout.rollout_id, rollout.step)
    if verdict.judge(rollout, counted, now).decision is Decision.HOLD:
        return
    candidate = await versions.find_adapter(tx.connection, rollout.candidate_id)
    if candidate is None:
        return
    family = await repository.lock(tx, candidate.submission.domain, candidate.submission.method)
    current = family.rollout
    if current is None or current.rollout_id != rollout.rollout_id:
        return
    # Another transaction may have moved it while this one waited.
    counted = await rollouts.counted(tx.connection, current.rollout_id, current.step)
    found = verdict.judge(current, counted, now)
    if found.decision is Decision.HOLD:
        return
    evidence = verdict.evidence_of(current, counted)
    act = Act(domain.PIPELINE, now, found.reason)
    match found.decision:
        case Decision.ROLL_BACK:
            change = transitions.roll_back(family, act, evidence)
        case Decision.ADVANCE:
            change = transitions.advance(family, act, evidence)
        case Decision.PROMOTE:
            change = domain.activate(family, current.candidate_id, act, evidence)
    await repository.save(tx, family, change)


async def _rollout_of(tx: Transaction, part: v1.RolloutPart, adapter_id: str) -> Rollout:
    """The rollout that an event has a part in; refused where it names another version than the part's."""
    rollout = await rollouts.find_rollout(tx.connection, part.rollout_id)
    if rollout is None:
        raise Refused(f"no rollout {part.rollout_id!r} is known")
    expected = rollout.candidate_id if part.arm is RolloutArm.CANDIDATE else rollout.incumbent_id
    if adapter_id != expected:
        raise Refused(f"the {part.arm} of {part.rollout_id} is {expected}, not {adapter_id or 'the base model'}")
    return rollout


def _part(part: v1.RolloutPart) -> Part:
    return Part(part.rollout_id, part.step, RolloutArm(part.arm))
