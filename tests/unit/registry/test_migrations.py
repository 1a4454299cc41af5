"""How a version gets to another base model, and the training that makes it again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fleet_events import v1
from services.registry.family import Adapter
from services.registry.migrating.rule import MigrationRule
from services.registry.migrating.strategy import Strategy, Target, check, choose, training_request
from services.registry.policy import InvalidPolicy, Policy
from services.registry.transition import Act, NotAllowed
from services.registry.version import SemVer
from services.trainer.training.configuration import Configuration, resolve
from tests.unit.registry import builders

pytestmark = pytest.mark.unit

ACT = Act("anna", builders.START, "the old one is retired")
NEXT = v1.BaseModel(name="Next", revision=builders.digest("next"))


def adapter(**training: object) -> Adapter:
    submission = builders.submission()
    if submission.training is not None:
        submission = replace(submission, training=replace(submission.training, **training))  # type: ignore[arg-type]
    return Adapter("tax-law-lora-v1.0.0", SemVer(1, 0, 0), submission, registered_at=builders.START)


OLD_BASE = adapter().submission.base_model


@pytest.mark.requirement("AS-9.1")
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), Strategy.RETRAIN),
        ((MigrationRule(OLD_BASE.name, "Next", "convert"),), Strategy.CONVERT),
        ((MigrationRule(OLD_BASE.revision, NEXT.revision, "convert"),), Strategy.CONVERT),
        ((MigrationRule("tax-law-lora-v1.0.0", "*", "convert"),), Strategy.CONVERT),
        (
            (MigrationRule("*", "Other", "convert"), MigrationRule("tax-law-lora-v1.0.1", "*", "convert")),
            Strategy.RETRAIN,
        ),
        ((MigrationRule("*", "*", "retrain"), MigrationRule("*", "Next", "convert")), Strategy.RETRAIN),
    ],
)
def test_the_first_rule_that_names_both_sides_decides_and_without_one_it_is_trained_again(
    rules: tuple[MigrationRule, ...], expected: Strategy
) -> None:
    assert choose(None, rules, adapter(), NEXT) is expected
    assert choose(Strategy.CONVERT, rules, adapter(), NEXT) is Strategy.CONVERT


@pytest.mark.requirement("AS-9.1")
def test_a_version_is_made_again_from_the_same_data_set_with_the_same_configuration() -> None:
    made = Configuration(rank=8, alpha=24.0, epochs=2.0, target_modules=("q_proj", "v_proj"), max_steps=40, layers=3)
    old = adapter(configuration=made.canonical(), configuration_sha256=made.sha256, objective="sft")
    target = Target(NEXT, frozenset({"q_proj", "k_proj", "v_proj"}))
    request = training_request(old, target, "migration-1", ACT)
    assert (request.base_model, request.dataset_id, request.requested_by) == ("Next", "ds-data", "anna")
    assert (request.job_id, request.golden_dataset_id) == ("migration-1", old.submission.golden_dataset_id)
    # What the trainer makes of the request is the configuration itself.
    again = resolve(request.method, request.hyperparameters, request.objective, ("other_proj",))
    assert again.canonical() == made.canonical()


def test_projections_that_the_new_base_model_lacks_are_left_to_the_trainer() -> None:
    old = adapter(configuration=json.dumps({"rank": 8, "target_modules": ["q_proj", "c_attn"]}))
    request = training_request(old, Target(NEXT, frozenset({"q_proj"})), "migration-1", ACT)
    assert request.hyperparameters is not None
    assert (request.hyperparameters.target_modules, request.hyperparameters.rank) == ((), 8)


@pytest.mark.parametrize(
    ("old", "target", "strategy", "why"),
    [
        (adapter(), OLD_BASE, Strategy.CONVERT, "at this revision already"),
        (adapter(continued_from="tax-law-lora-v0.9.0"), NEXT, Strategy.RETRAIN, "migrate that one first"),
        (
            replace(adapter(), submission=replace(adapter().submission, training=None)),
            NEXT,
            Strategy.RETRAIN,
            "was not trained here",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_refused_with_what_can_be_done(
    old: Adapter, target: v1.BaseModel, strategy: Strategy, why: str
) -> None:
    with pytest.raises(NotAllowed, match=why):
        check(old, target, strategy, Policy())


@pytest.mark.requirement("AS-9.1")
def test_a_serving_version_is_distilled_where_its_domain_lets_answers_become_data() -> None:
    permitting = Policy(record_answers=v1.RecordAnswers.ALL)
    serving = replace(adapter(continued_from="tax-law-lora-v0.9.0", configuration='{"rank":8}'), active=True)
    check(serving, NEXT, Strategy.DISTIL, permitting)  # what it continued is in its answers
    request = training_request(serving, Target(NEXT, frozenset()), "migration-1", ACT, distil=True)
    assert (request.distil_from, request.dataset_id) == ("tax-law-lora-v1.0.0", "ds-data")
    pairs = v1.Dataset(dataset_id="ds-data", blob=builders.blob("data"), samples=1, kind="preference")
    refused = {
        "lets no answer become data": (serving, Policy()),
        "does not serve": (replace(serving, active=False), permitting),
        "several answers to a prompt": (replace(adapter(dataset=pairs), active=True), permitting),
    }
    for why, (old, policy) in refused.items():
        with pytest.raises(NotAllowed, match=why):
            check(old, NEXT, Strategy.DISTIL, policy)


def test_a_rule_with_an_unknown_strategy_is_no_policy() -> None:
    with pytest.raises(InvalidPolicy, match="'guess', expected some of convert, retrain, distil"):
        Policy(migration_strategies=(MigrationRule("*", "*", "guess"),))
