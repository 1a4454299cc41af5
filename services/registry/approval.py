"""What an approval needs: a score, or the domain's permission to do without; and what a decision was made on. Pure."""

from __future__ import annotations

from dataclasses import asdict

from services.registry.family import Adapter, Evaluation
from services.registry.policy import Policy
from services.registry.transition import NotAllowed


def check_evaluated(adapter: Adapter, policy: Policy, *, without_evaluation: bool) -> None:
    """A human approves on a score, or expressly without one where the policy permits it; raises NotAllowed."""
    if adapter.evaluation is not None:
        if without_evaluation:
            found = f"{adapter.adapter_id} has an evaluation (score {adapter.evaluation.judgement.score:.1f})"
            raise NotAllowed(f"{found}: look at it, and approve without `without_evaluation`", "without_evaluation")
    elif not without_evaluation:
        raise NotAllowed(
            f"{adapter.adapter_id} has no evaluation: evaluate it first, or send `without_evaluation` with a reason",
            "without_evaluation",
        )
    elif not policy.allow_approval_without_evaluation:
        raise NotAllowed(
            f"the policy of {adapter.submission.domain} does not permit an approval without an evaluation: evaluate "
            f"{adapter.adapter_id} first, or have an admin set `allow_approval_without_evaluation`",
            "without_evaluation",
        )


def grounds(evaluation: Evaluation | None, policy: Policy | None) -> dict[str, object]:
    """What a decision is made on, for the audit trail: policies change, and defaults with the release."""
    on: dict[str, object] = {"evaluation_id": evaluation.evaluation_id} if evaluation else {}
    return on | ({"policy": asdict(policy)} if policy else {})
