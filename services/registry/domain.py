"""What can happen to a family of adapters: pure transitions (family, input) → new family + events + audit entries.

Every event carries the family's `revision`, one higher than the event before. Where a version takes over, the old
one's AdapterDeactivated comes before the new one's AdapterActivated, so that a consumer which ignores what is older
than what it holds ends with the new version in whichever order the two arrive.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from fleet_events import Event, v1
from services.registry import approval
from services.registry.family import Adapter, Evaluation, Family, Status, Submission, adapter_id
from services.registry.policy import Decision, Policy, decide
from services.registry.rollout import transitions as rollouts
from services.registry.transition import (
    Act,
    Announcement,
    AuditEntry,
    Change,
    DuplicateVersion,
    JobReused,
    NotAllowed,
    NotTheArtifact,
    UnknownAdapter,
)

PIPELINE = "automated-pipeline"
"""Who decides when the policy does."""


def register(family: Family, submission: Submission, act: Act) -> Change:
    """A validated artifact becomes a version in review.

    The same training job with the same artifact again changes nothing. Raises DuplicateVersion, JobReused.
    """
    if submission.training is not None:
        for adapter in family.versions:
            known = adapter.submission.training
            if known is not None and known.job_id == submission.training.job_id:
                if adapter.artifact_sha256 != submission.artifact.blob.sha256:
                    raise JobReused(known.job_id, adapter.adapter_id)
                return Change(family, adapter_id=adapter.adapter_id)
    version = submission.version or family.next_version(submission)
    new_id = adapter_id(submission.domain, submission.method, version)
    if family.find(new_id) is not None:
        raise DuplicateVersion(new_id, family.next_version(submission))
    adapter = Adapter(new_id, version, _findable(submission, family), registered_at=act.at)
    registered = v1.AdapterRegistered(
        adapter=adapter.card,
        revision=family.next_revision,
        job_id=submission.training.job_id if submission.training else "",
        golden_dataset_id=submission.golden_dataset_id,
    )
    return _announce(family, registered, act, "registered", after=adapter)


def _findable(submission: Submission, family: Family) -> Submission:
    """With what its predecessor is found by, where it brings nothing of its own that a query could be held against.

    Otherwise its activation would silently take the family out of `auto`.
    """
    before = family.latest
    if before is None or submission.description or submission.example_prompts or submission.routing:
        return submission
    return replace(
        submission, description=before.submission.description, example_prompts=before.submission.example_prompts
    )


def score(family: Family, adapter_id: str, evaluation: Evaluation, policy: Policy, at: datetime) -> Change:
    """A judge's score arrives; the policy decides where the version still waits for its decision.

    A score for other bytes is refused (NotTheArtifact). A score that is older than the one held is kept as history
    and decides nothing. The caller sees to it that one evaluation is scored once.
    """
    adapter = _find(family, adapter_id)
    if evaluation.artifact_sha256 != adapter.artifact_sha256:
        raise NotTheArtifact(adapter, evaluation.artifact_sha256, f"evaluation {evaluation.evaluation_id}")
    held = adapter.evaluation
    if held is not None and evaluation.scored_at <= held.scored_at:
        return Change(family, adapter_id=adapter_id, evaluation=evaluation)
    scored = replace(adapter, evaluation=evaluation)
    family = family.with_adapter(scored)
    if adapter.status is not Status.PENDING_REVIEW:
        return Change(family, adapter_id=adapter_id, evaluation=evaluation)
    serving = family.active
    replaces = serving.adapter_id if serving is not None and serving.version < adapter.version else ""
    verdict = decide(policy, evaluation.judgement, adapter.submission.auto_approve_threshold, replaces)
    act = Act(PIPELINE, at, verdict.reason)
    match verdict.decision:
        case Decision.APPROVE:
            change = approve(family, adapter_id, act, policy, on=evaluation)
        case Decision.REJECT:
            change = reject(family, adapter_id, act, on=evaluation)
        case Decision.REVIEW:
            change = _ask_a_human(family, scored, act, evaluation)
    return replace(change, evaluation=evaluation)


def approve(
    family: Family,
    adapter_id: str,
    act: Act,
    policy: Policy,
    on: Evaluation | None = None,
    *,
    without_evaluation: bool = False,
) -> Change:
    """The version may serve; under `activate_on_approval` it takes over, unless a higher version serves already.

    It takes over in the way of the policy's `delivery`: at once, or by a rollout.

    `on` is the evaluation that decided, absent when a human did. Approving what is approved changes nothing.

    Raises:
        NotAllowed: it was rejected; it is one's own training and the policy forbids that; it has no score, and
            `without_evaluation` was not set or the policy does not permit it.
    """
    adapter = _find(family, adapter_id)
    if adapter.status is Status.APPROVED:
        return Change(family, adapter_id=adapter_id)
    if adapter.status is Status.REJECTED:
        raise NotAllowed(f"{adapter_id} was rejected ({adapter.decision_reason}); register a new version instead")
    if policy.forbid_own_approval and act.by == adapter.submission.by:
        raise NotAllowed(f"{adapter_id} was made by {act.by}, whose own approval this domain's policy does not accept")
    if on is None:
        approval.check_evaluated(adapter, policy, without_evaluation=without_evaluation)
    evaluation = on or adapter.evaluation
    approved = v1.Approved(
        adapter_id=adapter_id,
        family=family.family_id,
        domain=family.domain,
        artifact_sha256=adapter.artifact_sha256,
        revision=family.next_revision,
        by=act.by,
        reason=act.reason,
        score=evaluation.judgement.score if evaluation else None,
        evaluation_id=evaluation.evaluation_id if evaluation else "",
        without_evaluation=evaluation is None,
    )
    after = _decided(adapter, Status.APPROVED, act, on)
    noted: dict[str, object] = {} if evaluation else {"without_evaluation": True}
    change = _announce(family, approved, act, "approved", before=adapter, after=after, noted=noted)
    serving = family.active
    if policy.activate_on_approval and (serving is None or serving.version < adapter.version):
        change = change.then(take_over(change.family, adapter_id, policy, act))
    return change


def take_over(family: Family, adapter_id: str, policy: Policy, act: Act) -> Change:
    """An approved version replaces the active one in the way of the policy's `delivery`: at once, or by a rollout."""
    by_rollout = rollouts.take_over(family, adapter_id, policy.delivery, act)
    return by_rollout or activate(family, adapter_id, act)


def reject(family: Family, adapter_id: str, act: Act, on: Evaluation | None = None) -> Change:
    """The version must not serve, now or ever; an approved one loses its approval and stops serving."""
    adapter = _find(family, adapter_id)
    if adapter.status is Status.REJECTED:
        return Change(family, adapter_id=adapter_id)
    change = deactivate(family, adapter_id, act)
    adapter = _find(change.family, adapter_id)
    evaluation = on or adapter.evaluation
    rejected = v1.Rejected(
        adapter_id=adapter_id,
        family=family.family_id,
        domain=family.domain,
        revision=change.family.next_revision,
        by=act.by,
        reason=act.reason,
        score=evaluation.judgement.score if evaluation else None,
        evaluation_id=evaluation.evaluation_id if evaluation else "",
    )
    after = _decided(adapter, Status.REJECTED, act, on)
    return change.then(_announce(change.family, rejected, act, "rejected", before=adapter, after=after))


def activate(family: Family, adapter_id: str, act: Act, evidence: rollouts.Found = ()) -> Change:
    """The version answers for its family from now on; the one that did stops (AM-3.1).

    Its rollout is completed by that, with this evidence; one of another candidate is rolled back. Going back to a lower
    version is published as AdapterRolledBack too. Raises NotAllowed unless it is approved.
    """
    adapter = _find(family, adapter_id)
    if adapter.status is not Status.APPROVED:
        raise NotAllowed(f"{adapter_id} is {adapter.status}; only an approved version can be activated")
    if adapter.active:
        return Change(family, adapter_id=adapter_id)
    old = family.active
    change, completes = rollouts.before_activation(family, adapter_id, act)
    if old is not None:
        change = change.then(deactivate(change.family, old.adapter_id, act, replaced_by=adapter_id))
    activated = v1.AdapterActivated(
        adapter=adapter.card,
        revision=change.family.next_revision,
        by=act.by,
        reason=act.reason,
        replaces=old.adapter_id if old else "",
        rollout_id=completes,
        evidence=tuple(evidence),
    )
    noted: dict[str, object] = {"rollout_id": completes} if completes else {}
    after = replace(adapter, active=True)
    change = change.then(
        _announce(change.family, activated, act, "activated", before=adapter, after=after, noted=noted)
    )
    if old is not None and old.version > adapter.version:
        change = change.then(_rolled_back(change.family, old, adapter, act))
    return change


def deactivate(family: Family, adapter_id: str, act: Act, replaced_by: str = "") -> Change:
    """The version takes no new requests (AM-3.2): its rollout is rolled back. What is not active stays as it is."""
    adapter = _find(family, adapter_id)
    change = rollouts.without(family, adapter_id, act)
    if not adapter.active:
        return change
    family = change.family
    deactivated = v1.AdapterDeactivated(
        adapter_id=adapter_id,
        family=family.family_id,
        domain=family.domain,
        revision=family.next_revision,
        by=act.by,
        reason=act.reason,
        replaced_by=replaced_by,
    )
    after = replace(adapter, active=False)
    return change.then(_announce(family, deactivated, act, "deactivated", before=adapter, after=after))


def could_not_judge(family: Family, adapter_id: str, evaluation_id: str, reason: str, at: datetime) -> Change:
    """No score could be made: a version that still waits for its decision now waits for a human."""
    adapter = _find(family, adapter_id)
    if adapter.status is not Status.PENDING_REVIEW or adapter.evaluation is not None:
        return Change(family, adapter_id=adapter_id)
    return _ask_a_human(family, adapter, Act(PIPELINE, at, f"evaluation {evaluation_id} failed: {reason}"))


def _ask_a_human(family: Family, adapter: Adapter, act: Act, on: Evaluation | None = None) -> Change:
    requested = v1.ReviewRequested(
        adapter_id=adapter.adapter_id,
        family=family.family_id,
        domain=family.domain,
        revision=family.next_revision,
        reason=act.reason,
        score=on.judgement.score if on else None,
        evaluation_id=on.evaluation_id if on else "",
    )
    return _announce(family, requested, act, "review_requested", before=adapter, after=adapter)


def _rolled_back(family: Family, old: Adapter, new: Adapter, act: Act) -> Change:
    """The activation before it has the audit entry: this event adds only the direction."""
    rolled_back = v1.AdapterRolledBack(
        family=family.family_id,
        domain=family.domain,
        from_adapter_id=old.adapter_id,
        to_adapter_id=new.adapter_id,
        revision=family.next_revision,
        by=act.by,
        reason=act.reason,
    )
    after = replace(family, revision=family.next_revision)
    return Change(after, (Announcement(rolled_back, new.adapter_id),), (), new.adapter_id)


def _announce(
    family: Family,
    event: Event,
    act: Act,
    action: str,
    *,
    after: Adapter,
    before: Adapter | None = None,
    noted: dict[str, object] | None = None,
) -> Change:
    """One version goes from `before` to `after`: `event` carries the family's next revision, the audit trail `action`.

    `before` is None for a version that is new; `noted` is what the audit trail has beside the version's state.
    """
    revision = family.next_revision
    state = _state(after) | (noted or {})
    entry = AuditEntry(after.adapter_id, action, act, _state(before) if before else {}, state, revision)
    return Change(
        replace(family.with_adapter(after), revision=revision),
        (Announcement(event, after.adapter_id),),
        (entry,),
        after.adapter_id,
    )


def _find(family: Family, adapter_id: str) -> Adapter:
    adapter = family.find(adapter_id)
    if adapter is None:
        raise UnknownAdapter(adapter_id)
    return adapter


def _decided(adapter: Adapter, status: Status, act: Act, on: Evaluation | None) -> Adapter:
    return replace(
        adapter,
        status=status,
        decided_by=act.by,
        decided_at=act.at,
        decision_reason=act.reason,
        decided_on=on.evaluation_id if on else "",
    )


def _state(adapter: Adapter) -> dict[str, object]:
    return {"status": adapter.status.value, "active": adapter.active}
