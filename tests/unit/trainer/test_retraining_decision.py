"""Retraining rules: what fires, what does not and why, and what never happens in any course of events."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet_events.v1 import RetrainingTrigger as Trigger
from services.trainer.retraining.decision import DAY, Decision, decide
from services.trainer.retraining.observation import planned_steps
from services.trainer.retraining.rules import Budget, Drift, NewSamples, RatingTrend, RetrainingRules
from services.trainer.retraining.situation import ActiveVersion, Distances, Observed, Situation, Spent
from services.trainer.training.configuration import Configuration

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACTIVE = ActiveVersion("shop-lora-v1.0.0", "a" * 64, NOW - 10 * DAY)
QUIET = Situation(NOW, NOW - 5 * DAY, "a" * 64, active=ACTIVE, planned_steps=30)


def observed(values: list[float]) -> tuple[Observed, ...]:
    return tuple(Observed(NOW - HOUR + index * timedelta(seconds=1), value) for index, value in enumerate(values))


def triggers(decision: Decision) -> tuple[Trigger, ...]:
    return tuple(cause.trigger for cause in decision.fired)


def held(decision: Decision) -> dict[Trigger, str]:
    return {one.cause.trigger: one.why for one in decision.suppressed}


SAMPLES = RetrainingRules(new_samples=NewSamples(at_least=20))


def test_enough_new_samples_fire_and_one_fewer_does_not() -> None:
    assert triggers(decide(SAMPLES, replace(QUIET, new_samples=20))) == (Trigger.NEW_SAMPLES,)
    assert decide(SAMPLES, replace(QUIET, new_samples=19)) == Decision()


def test_the_first_adapter_of_a_domain_is_trained_too() -> None:
    assert triggers(decide(SAMPLES, replace(QUIET, active=None, new_samples=20))) == (Trigger.NEW_SAMPLES,)


def test_rules_that_are_off_do_nothing() -> None:
    assert decide(SAMPLES.model_copy(update={"enabled": False}), replace(QUIET, new_samples=99)) == Decision()
    assert decide(RetrainingRules(), replace(QUIET, new_samples=99)) == Decision()


def test_a_fall_of_ratings_fires_once_there_is_new_data_to_learn_from() -> None:
    rules = RetrainingRules(rating_trend=RatingTrend(expected=4.5, fall=1))
    fallen = replace(QUIET, ratings=observed([5.0, 4.0] * 20 + [1.0, 2.0] * 20))
    assert held(decide(rules, fallen)) == {Trigger.RATING_TREND: "no_new_data"}
    assert triggers(decide(rules, replace(fallen, new_samples=1))) == (Trigger.RATING_TREND,)
    assert decide(rules, replace(QUIET, new_samples=1, ratings=observed([5.0, 4.0] * 40))) == Decision()


def test_without_an_expected_rating_a_versions_first_ratings_are_the_reference() -> None:
    rules = RetrainingRules(rating_trend=RatingTrend(reference=10))
    low = observed([2.0] * 100)
    assert decide(rules, replace(QUIET, new_samples=1, ratings=low)) == Decision()
    fallen = observed([4.0] * 10 + [2.0] * 100)
    assert triggers(decide(rules, replace(QUIET, new_samples=1, ratings=fallen))) == (Trigger.RATING_TREND,)


def test_prompts_far_from_the_training_data_fire_and_unmeasurable_ones_are_listed() -> None:
    rules = RetrainingRules(drift=Drift())
    held_out = tuple(0.2 + index / 1000 for index in range(40))
    far = replace(QUIET, new_samples=40, distances=Distances(observed([0.8] * 40), held_out))
    assert triggers(decide(rules, far)) == (Trigger.DRIFT,)
    near = replace(far, distances=Distances(observed(list(held_out)), held_out))
    assert decide(rules, near) == Decision()
    assert held(decide(rules, replace(far, distances=Distances(unmeasured="no model")))) == {
        Trigger.DRIFT: "not_measurable"
    }


def test_a_schedule_waits_for_new_data_and_fires_once_a_due_time() -> None:
    rules = RetrainingRules(schedule="daily 03:00")
    assert held(decide(rules, QUIET)) == {Trigger.SCHEDULE: "no_new_data"}
    due = replace(QUIET, new_samples=1)
    fired = decide(rules, due)
    assert triggers(fired) == (Trigger.SCHEDULE,)
    assert decide(rules, replace(due, handled=frozenset({fired.fired[0].key}))) == Decision()


def test_a_new_base_model_fires_without_new_data_and_is_the_only_way_off_another_one() -> None:
    moved = replace(QUIET, base_revision="b" * 64)
    rules = RetrainingRules(new_base_model=True)
    assert triggers(decide(rules, moved)) == (Trigger.NEW_BASE_MODEL,)
    assert held(decide(SAMPLES, replace(moved, new_samples=20))) == {Trigger.NEW_SAMPLES: "other_base_model"}
    anew = SAMPLES.model_copy(update={"from_active": False})
    assert triggers(decide(anew, replace(moved, new_samples=20))) == (Trigger.NEW_SAMPLES,)


def test_an_erasure_fires_once_without_new_data_also_where_it_took_the_version_out_of_service() -> None:
    rules = RetrainingRules(after_erasure=True)
    erased = replace(QUIET, erased=("er-1", "er-2"))
    fired = decide(rules, erased)
    assert triggers(fired) == (Trigger.ERASURE, Trigger.ERASURE)
    assert "shop-lora-v1.0.0 learned from records that erasure er-1 deleted" in fired.reason
    handled = frozenset(cause.key for cause in fired.fired)
    assert decide(rules, replace(erased, handled=handled)) == Decision()
    assert triggers(decide(rules, replace(erased, active=None, deactivated=True)))
    assert decide(RetrainingRules(), erased) == Decision()
    assert held(decide(rules, replace(erased, planned_steps=0))) == {Trigger.ERASURE: "no_data"}
    # It begins a new adapter, so what hinders to continue the old one hinders nothing.
    assert triggers(decide(rules, replace(erased, base_revision="b" * 64)))


@pytest.mark.requirement("LA-1.7")
def test_an_erasure_waits_for_the_recipe_to_be_built_again_and_holds_no_other_cause_back() -> None:
    rules = RetrainingRules(after_erasure=True, new_samples=NewSamples(at_least=1))
    waiting = replace(QUIET, erased=("er-1",), not_rebuilt=("rebuilding", "data set shop is built again"))
    decision = decide(rules, waiting)
    assert (triggers(decision), held(decision)) == ((), {Trigger.ERASURE: "rebuilding"})
    assert triggers(decide(rules, replace(waiting, new_samples=5))) == (Trigger.NEW_SAMPLES,)
    assert triggers(decide(rules, replace(waiting, not_rebuilt=None))) == (Trigger.ERASURE,)


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("deactivated", {"active": None, "deactivated": True}),
        ("no_data", {"planned_steps": 0}),
        ("cannot_continue", {"active": replace(ACTIVE, trained_here=False)}),
        ("job_open", {"open_job": "retrain-shop-1"}),
        ("cooldown", {"last_firing": NOW - HOUR}),
        ("budget", {"spent": (Spent(NOW - 23 * HOUR, 5),)}),
    ],
)
def test_each_hindrance_is_named(why: str, change: dict[str, object]) -> None:
    situation = replace(QUIET, new_samples=20, **change)  # type: ignore[arg-type]
    assert held(decide(SAMPLES, situation)) == {Trigger.NEW_SAMPLES: why}


def test_planned_steps_count_against_a_days_steps() -> None:
    rules = SAMPLES.model_copy(update={"budget": Budget(jobs_a_day=9, steps_a_day=50), "cooldown_hours": 0.0})
    spent = (Spent(NOW - 23 * HOUR, 20), Spent(NOW - 25 * HOUR, 1000))
    situation = replace(QUIET, new_samples=20, spent=spent)
    assert triggers(decide(rules, situation)) == (Trigger.NEW_SAMPLES,)
    assert held(decide(rules, replace(situation, planned_steps=31))) == {Trigger.NEW_SAMPLES: "budget"}


def test_tokens_count_against_a_days_tokens_and_the_refusal_names_them() -> None:
    rules = SAMPLES.model_copy(update={"budget": Budget(jobs_a_day=9, tokens_a_day=5_000), "cooldown_hours": 0.0})
    spent = (Spent(NOW - 23 * HOUR, 20, 2_000), Spent(NOW - 25 * HOUR, 1000, 90_000))
    situation = replace(QUIET, new_samples=20, spent=spent, planned_tokens=3_000)
    assert triggers(decide(rules, situation)) == (Trigger.NEW_SAMPLES,)
    (refused,) = decide(rules, replace(situation, planned_tokens=3_001)).suppressed
    told = "2000 tokens within 24 hours and 3001 more, 5000 are allowed (tokens_a_day)"
    assert (refused.why, refused.detail) == ("token_budget", told)


def test_causes_at_once_share_one_job() -> None:
    rules = SAMPLES.model_copy(update={"schedule": "every 24h"})
    assert triggers(decide(rules, replace(QUIET, new_samples=20))) == (Trigger.NEW_SAMPLES, Trigger.SCHEDULE)


@pytest.mark.parametrize("field", ["continueFrom", "dataset_id", "reason", "jobId", "version"])
def test_what_the_rules_fill_in_cannot_be_set(field: str) -> None:
    with pytest.raises(ValidationError, match="set this themselves"):
        RetrainingRules(training={field: "x"})


def test_fine_tuning_takes_good_answers_and_other_objectives_take_what_they_ask_for() -> None:
    assert RetrainingRules().request("shop").min_rating == 4
    assert RetrainingRules(training={"minRating": 2}).request("shop").min_rating == 2
    assert RetrainingRules(training={"objective": "dpo"}).request("shop").min_rating is None
    assert RetrainingRules(training={"objective": None}).request("shop").min_rating == 4


@dataclass
class Course:
    """A domain's life as the database would keep it: what happens, and what the rules do about it."""

    rules: RetrainingRules
    now: datetime = NOW
    samples: list[datetime] = field(default_factory=list)
    ratings: list[Observed] = field(default_factory=list)
    fired: list[tuple[datetime, Decision, int]] = field(default_factory=list)
    open: bool = False
    active: ActiveVersion = ACTIVE
    base_revision: str = "a" * 64

    def situation(self) -> Situation:
        spent = tuple(Spent(at, steps) for at, _, steps in self.fired if at > self.now - DAY)
        bare = Situation(
            self.now,
            NOW,
            self.base_revision,
            active=self.active,
            planned_steps=1 + len(self.samples) // 8,
            ratings=tuple(self.ratings),
            last_firing=self.fired[-1][0] if self.fired else None,
            open_job="job" if self.open else "",
            spent=spent,
            handled=frozenset(cause.key for _, decision, _ in self.fired for cause in decision.fired),
        )
        since = bare.evidence_since
        return replace(bare, new_samples=sum(since is None or at > since for at in self.samples))

    def evaluate(self) -> None:
        decision = decide(self.rules, situation := self.situation())
        if decision.fired:
            self.fired.append((self.now, decision, situation.planned_steps))
            self.open = True

    def happen(self, what: str, amount: int) -> None:
        self.now += timedelta(minutes=1)
        match what:
            case "time":
                self.now += timedelta(minutes=37 * amount)
            case "samples":
                self.samples += [self.now] * amount
            case "bad ratings":
                self.ratings += [Observed(self.now, 1.0)] * amount
            case "job fails":
                self.open = False
            case "job is activated" if self.open:
                self.open = False
                self.active = ActiveVersion(f"v{len(self.fired)}", self.base_revision, self.fired[-1][0])
                self.ratings = []
            case "base model":
                self.base_revision = "b" * 64
        self.now += timedelta(minutes=1)
        self.evaluate()


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["time", "samples", "bad ratings", "job fails", "job is activated", "base model"]),
        st.integers(1, 40),
    ),
    max_size=60,
)


@given(_EVENTS, st.integers(1, 3), st.sampled_from([None, 6, 20]), st.sampled_from([0.0, 0.5, 12.0]))
@settings(max_examples=150, deadline=None)
def test_in_any_course_of_events_no_cause_gets_two_jobs_and_the_budget_holds_and_nothing_is_trained_without_new_data(
    events: list[tuple[str, int]], jobs_a_day: int, steps_a_day: int | None, cooldown: float
) -> None:
    course = Course(
        RetrainingRules(
            new_samples=NewSamples(at_least=30),
            rating_trend=RatingTrend(expected=4.0),
            schedule="every 3h",
            new_base_model=True,
            cooldown_hours=cooldown,
            budget=Budget(jobs_a_day=jobs_a_day, steps_a_day=steps_a_day),
        )
    )
    for what, amount in events:
        course.happen(what, amount)
    keys = [cause.key for _, decision, _ in course.fired for cause in decision.fired]
    assert len(keys) == len(set(keys))
    times = [at for at, _, _ in course.fired]
    for at in times:
        within = [one for one in course.fired if at - DAY < one[0] <= at]
        assert len(within) <= jobs_a_day
        assert steps_a_day is None or sum(steps for _, _, steps in within) <= steps_a_day
    for earlier, (later, decision, _) in zip(times, course.fired[1:], strict=False):
        assert later >= earlier + timedelta(hours=cooldown)
        new_base = any(cause.trigger is Trigger.NEW_BASE_MODEL for cause in decision.fired)
        assert new_base or any(earlier < sample <= later for sample in course.samples)


@pytest.mark.parametrize(
    ("usable", "configuration", "steps"),
    [
        (0, Configuration(), 0),
        (1, Configuration(epochs=0.01), 1),
        (17, Configuration(epochs=2, batch_size=8), 6),
        (17, Configuration(epochs=2, batch_size=8, max_steps=4), 4),
        (10**9, Configuration(epochs=100, batch_size=1), 2**31 - 1),
    ],
)
def test_steps_are_planned_as_they_will_be_taken(usable: int, configuration: Configuration, steps: int) -> None:
    assert planned_steps(configuration, usable) == steps
