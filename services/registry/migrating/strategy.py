"""How a version gets to another base model, and the training that it takes. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fleet_events import v1
from services.registry.family import Adapter, Training
from services.registry.migrating.rule import ANY, MigrationRule
from services.registry.policy import Policy
from services.registry.transition import Act, NotAllowed


class Strategy(StrEnum):
    """convert: the same weights, checked against the new base model's layers. retrain: same data and configuration.
    distil: same prompts and configuration, with the old version's answers."""

    CONVERT = "convert"
    RETRAIN = "retrain"
    DISTIL = "distil"


@dataclass(frozen=True, slots=True)
class Target:
    """The base model that a version is carried over to; `projections` are the short names of its layers."""

    base_model: v1.BaseModel
    projections: frozenset[str]


def choose(
    requested: Strategy | None, rules: Sequence[MigrationRule], adapter: Adapter, target: v1.BaseModel
) -> Strategy:
    """The requested strategy, else that of the domain's first rule that names these two, else automatic: retrain.

    A rule names the old side by adapter id, base model or revision of it, the new side by base model or revision.
    """
    if requested is not None:
        return requested
    base = adapter.submission.base_model
    old, new = {ANY, adapter.adapter_id, base.name, base.revision}, {ANY, target.name, target.revision}
    named = (rule.strategy for rule in rules if rule.old in old and rule.new in new)
    return Strategy(next(named, Strategy.RETRAIN))


def check(adapter: Adapter, target: v1.BaseModel, strategy: Strategy, policy: Policy) -> None:
    """Raises NotAllowed where this version cannot be carried over like this, with what can be done.

    `policy`: of its domain, which decides whether answers may become data.
    """
    submission = adapter.submission
    if submission.base_model.revision == target.revision:
        raise NotAllowed(f"{adapter.adapter_id} is for {target.name} at this revision already", "to_base_model")
    if strategy is Strategy.CONVERT:
        return
    training = submission.training
    if training is None:
        raise NotAllowed(
            f"{adapter.adapter_id} was not trained here, so it has no data set to train on again: convert it, or train "
            "a version on the new base model",
            "strategy",
        )
    if strategy is Strategy.DISTIL:
        _check_distillable(adapter, training, policy)
    elif training.continued_from:
        raise NotAllowed(
            f"{adapter.adapter_id} continued {training.continued_from}, whose data is not in its data set: migrate "
            "that one first and continue it, or convert this one",
            "strategy",
        )


def _check_distillable(adapter: Adapter, training: Training, policy: Policy) -> None:
    if not adapter.active:
        raise NotAllowed(f"{adapter.adapter_id} does not serve, so that nobody can ask it: retrain it", "strategy")
    if policy.record_answers is v1.RecordAnswers.NONE:
        raise NotAllowed(
            f"the policy of {adapter.submission.domain} lets no answer become data: set record_answers, or retrain",
            "strategy",
        )
    if training.dataset.kind not in ("", v1.RecordKind.COMPLETION, v1.RecordKind.CONVERSATION):
        raise NotAllowed(
            f"{adapter.adapter_id} learned from a data set of kind {training.dataset.kind}, which has several "
            "answers to a prompt: retrain it",
            "strategy",
        )


def training_request(
    adapter: Adapter,
    target: Target,
    job_id: str,
    act: Act,
    *,
    distil: bool = False,
    triggers: Sequence[v1.RetrainingTrigger] = (),
) -> v1.TrainingRequested:
    """The training that makes this version again on the new base model: same data set version, same configuration.

    The adapted projections stay where the new base model has all of them; else its own are taken. `distil`: the answers
    are to be this version's own. `check` comes before; raises NotAllowed for a version that was not trained here.
    """
    submission = adapter.submission
    training = submission.training
    if training is None:
        raise NotAllowed(f"{adapter.adapter_id} was not trained here", "strategy")
    return v1.TrainingRequested(
        job_id=job_id,
        domain=submission.domain,
        method=submission.method,
        dataset_id=training.dataset.dataset_id,
        golden_dataset_id=submission.golden_dataset_id,
        hyperparameters=_hyperparameters(training.configuration, target.projections),
        auto_approve_threshold=submission.auto_approve_threshold,
        description=submission.description,
        requested_by=act.by,
        base_model=target.base_model.name,
        objective=training.objective,
        exports=tuple(dict.fromkeys(export.kind for export in training.exports)),
        reason=act.reason[:2000],
        triggers=tuple(triggers),
        distil_from=adapter.adapter_id if distil else "",
    )


def _hyperparameters(configuration: str, projections: Collection[str]) -> v1.Hyperparameters:
    found = json.loads(configuration)
    known = {name: found[name] for name in v1.Hyperparameters.model_fields if found.get(name) is not None}
    if not set(known.get("target_modules", ())) <= set(projections):
        known.pop("target_modules")
    return v1.Hyperparameters.model_validate(known)
