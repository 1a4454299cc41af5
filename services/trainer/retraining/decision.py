"""Whether a domain is trained again: (rules, situation) → what fires, and what does not fire and why. Pure.

A cause has a key, and a firing answers the keys that it names for good. Evidence counts from the newest firing or the
active version's data set on, whichever is later, so that what has been reacted to is never evidence again.
"""

from dataclasses import dataclass
from datetime import timedelta

from fleet_events.v1 import RetrainingTrigger as Trigger
from services.trainer.retraining import schedule
from services.trainer.retraining.change_detection import Detected, detect, distance_e_values, fall_e_values
from services.trainer.retraining.rules import Drift, RatingTrend, RetrainingRules
from services.trainer.retraining.situation import Situation

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Cause:
    """Why to train. `key` names it within the domain; `reason` is a sentence for people."""

    trigger: Trigger
    key: str
    reason: str


@dataclass(frozen=True)
class Suppressed:
    """A cause that does not lead to a job now. `why` is one of a few words, `detail` a sentence."""

    cause: Cause
    why: str
    detail: str


@dataclass(frozen=True)
class Decision:
    """The causes that one job is requested for, none where no job is; and those that are held back."""

    fired: tuple[Cause, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()

    @property
    def reason(self) -> str:
        """All reasons as one text."""
        return "; ".join(cause.reason for cause in self.fired)[:2000]


def decide(rules: RetrainingRules, situation: Situation) -> Decision:
    """At most one job, for all causes together that nothing holds back."""
    if not rules.enabled:
        return Decision()
    causes, blocked = [], list(_unmeasured(rules, situation))
    for cause in causes_of(rules, situation):
        if cause.key in situation.handled:
            continue
        if stale := _without_new_data(cause, rules, situation):
            blocked.append(Suppressed(cause, *stale))
        elif cause.trigger is Trigger.ERASURE and situation.not_rebuilt:
            blocked.append(Suppressed(cause, *situation.not_rebuilt))
        else:
            causes.append(cause)
    if causes and (hindrance := _hindrance(rules, situation, causes)):
        return Decision(suppressed=(*blocked, *(Suppressed(cause, *hindrance) for cause in causes)))
    return Decision(tuple(causes), tuple(blocked))


def causes_of(rules: RetrainingRules, situation: Situation) -> tuple[Cause, ...]:
    """Everything that the rules react to, answered or not, at any cost."""
    found = (
        _new_samples(rules, situation),
        _rating_trend(rules, situation),
        _drift(rules, situation),
        _schedule(rules, situation),
        _new_base_model(rules, situation),
    )
    return (*(cause for cause in found if cause is not None), *_erasures(rules, situation))


def rating_trend(rule: RatingTrend, situation: Situation) -> tuple[Detected, float | None]:
    """The detector over the ratings that count, and their expected mean; None while that is not known."""
    ratings, since = situation.ratings, situation.evidence_since
    expected = rule.expected
    if expected is None:
        if len(ratings) <= rule.reference:
            return Detected(0, 0.0, None), None
        expected = sum(one.value for one in ratings[: rule.reference]) / rule.reference
        ratings = ratings[rule.reference :]
    recent = ((one.value - 1) / 4 for one in ratings if since is None or one.at > since)
    return detect(fall_e_values(recent, (expected - 1) / 4, rule.fall / 4), rule.between_false_alarms), expected


def drift(rule: Drift, situation: Situation) -> Detected:
    """The detector over the distances of prompts that were recorded since the last training."""
    since = situation.evidence_since
    recent = (one.value for one in situation.distances.recorded if since is None or one.at > since)
    return detect(distance_e_values(situation.distances.held_out, recent), rule.between_false_alarms)


def _new_samples(rules: RetrainingRules, situation: Situation) -> Cause | None:
    rule = rules.new_samples
    if rule is None or situation.new_samples < rule.at_least:
        return None
    than = situation.active.adapter_id if situation.active else "no active version"
    reason = f"{situation.new_samples} usable samples are new to {than}, {rule.at_least} are enough"
    return Cause(Trigger.NEW_SAMPLES, _evidence_key(Trigger.NEW_SAMPLES, situation), reason)


def _rating_trend(rules: RetrainingRules, situation: Situation) -> Cause | None:
    rule = rules.rating_trend
    if rule is None or situation.active is None:
        return None
    found, expected = rating_trend(rule, situation)
    if found.at is None or expected is None:
        return None
    reason = (
        f"ratings of {situation.active.adapter_id} have fallen below {expected:.2f}, by about {rule.fall:g}: found "
        f"after {found.at} ratings, with one false alarm in {rule.between_false_alarms} at most"
    )
    return Cause(Trigger.RATING_TREND, _evidence_key(Trigger.RATING_TREND, situation), reason)


def _drift(rules: RetrainingRules, situation: Situation) -> Cause | None:
    rule = rules.drift
    if rule is None or situation.active is None or situation.distances.unmeasured:
        return None
    found = drift(rule, situation)
    if found.at is None:
        return None
    reason = (
        f"prompts are farther from the training data of {situation.active.adapter_id} than its held-out prompts: found "
        f"after {found.at} prompts, with one false alarm in {rule.between_false_alarms} at most"
    )
    return Cause(Trigger.DRIFT, _evidence_key(Trigger.DRIFT, situation), reason)


def _schedule(rules: RetrainingRules, situation: Situation) -> Cause | None:
    if rules.schedule is None:
        return None
    due = schedule.parse(rules.schedule).last_due(situation.rules_since, situation.now)
    if due is None:
        return None
    return Cause(
        Trigger.SCHEDULE, f"{Trigger.SCHEDULE}@{due.isoformat()}", f"{rules.schedule}: due at {due.isoformat()}"
    )


def _new_base_model(rules: RetrainingRules, situation: Situation) -> Cause | None:
    active, revision = situation.active, situation.base_revision
    if not rules.new_base_model or active is None or active.base_revision == revision:
        return None
    reason = f"the base model is at revision {revision[:12]}, {active.adapter_id} is of {active.base_revision[:12]}"
    return Cause(Trigger.NEW_BASE_MODEL, new_base_model_key(revision), reason)


def _erasures(rules: RetrainingRules, situation: Situation) -> tuple[Cause, ...]:
    version = situation.active.adapter_id if situation.active else "the version that was taken out of service"
    return tuple(
        Cause(Trigger.ERASURE, erasure_key(one), f"{version} learned from records that erasure {one} deleted")
        for one in situation.erased
        if rules.after_erasure or one in situation.to_replace
    )


def erasure_key(erasure_id: str) -> str:
    """Name of the cause that records of an erasure were learned from."""
    return f"{Trigger.ERASURE}@{erasure_id}"


def new_base_model_key(revision: str) -> str:
    """Name of the cause that the base model is at a revision."""
    return f"{Trigger.NEW_BASE_MODEL}@{revision}"


def _evidence_key(trigger: Trigger, situation: Situation) -> str:
    since = situation.evidence_since
    return f"{trigger}@{since.isoformat() if since else 'start'}"


def _unmeasured(rules: RetrainingRules, situation: Situation) -> tuple[Suppressed, ...]:
    if rules.drift is None or situation.active is None or not situation.distances.unmeasured:
        return ()
    cause = Cause(Trigger.DRIFT, f"{Trigger.DRIFT}@{situation.active.adapter_id}", "drift of the recorded prompts")
    return (Suppressed(cause, "not_measurable", situation.distances.unmeasured),)


def _without_new_data(cause: Cause, rules: RetrainingRules, situation: Situation) -> tuple[str, str] | None:
    least = rules.minimum_new_samples
    if cause.trigger in (Trigger.NEW_BASE_MODEL, Trigger.ERASURE) or situation.new_samples >= least:
        return None
    return "no_new_data", f"{situation.new_samples} usable samples are new, expected {least}"


def _hindrance(rules: RetrainingRules, situation: Situation, causes: list[Cause]) -> tuple[str, str] | None:
    """What holds back every cause alike."""
    return _not_trainable(rules, situation, causes) or _too_early(rules, situation) or _too_much(rules, situation)


def _not_trainable(rules: RetrainingRules, situation: Situation, causes: list[Cause]) -> tuple[str, str] | None:
    active = situation.active
    again = any(cause.trigger is Trigger.ERASURE for cause in causes)
    if situation.deactivated and not again:
        return "deactivated", "the family's version was taken out of service; activate one"
    if situation.planned_steps == 0:
        return "no_data", "no recorded sample is usable with this objective"
    if not rules.from_active or active is None or situation.erased:
        return None  # nothing is continued
    if not active.trained_here:
        return "cannot_continue", f"{active.adapter_id} was not trained here; set from_active to false to begin again"
    follows = any(cause.trigger is Trigger.NEW_BASE_MODEL for cause in causes)
    if active.base_revision != situation.base_revision and not follows:
        return "other_base_model", f"{active.adapter_id} is of another revision of the base model; set new_base_model"
    return None


def _too_early(rules: RetrainingRules, situation: Situation) -> tuple[str, str] | None:
    if situation.open_job:
        return "job_open", f"job {situation.open_job} of an earlier firing has not ended"
    if situation.last_firing is None:
        return None
    rested = situation.last_firing + timedelta(hours=rules.cooldown_hours)
    if situation.now < rested:
        return (
            "cooldown",
            f"the rules fired at {situation.last_firing.isoformat()}, and rest until {rested.isoformat()}",
        )
    return None


def _too_much(rules: RetrainingRules, situation: Situation) -> tuple[str, str] | None:
    budget, spent = rules.budget, [one for one in situation.spent if one.at > situation.now - DAY]
    if len(spent) >= budget.jobs_a_day:
        return "budget", f"{len(spent)} jobs within 24 hours, {budget.jobs_a_day} are allowed"
    steps, most = sum(one.steps for one in spent), budget.steps_a_day
    if most is not None and steps + situation.planned_steps > most:
        return "budget", f"{steps} steps within 24 hours and {situation.planned_steps} more, {most} are allowed"
    tokens, most = sum(one.tokens for one in spent), budget.tokens_a_day
    if most is not None and tokens + situation.planned_tokens > most:
        more = situation.planned_tokens
        return "token_budget", f"{tokens} tokens within 24 hours and {more} more, {most} are allowed (tokens_a_day)"
    return None
