"""Whether a version is a recommended update of another one that runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.registry.family import Adapter, Family, Status
from services.registry.policy import Comparison


@dataclass(frozen=True, slots=True)
class Update:
    """A version that could take over from one that runs, whether that is recommended, and why or why not.

    `improvement` is the difference in per cent of what the running version scores on the same samples.
    """

    running: Adapter
    available: Adapter
    recommended: bool
    why: str
    comparison: Comparison | None = None
    improvement: float | None = None


def best_update(family: Family, running: Adapter, served: frozenset[str], minimum: float) -> Update | None:
    """The recommended update with the largest difference, else the newest version that is available; None for none.

    Available is an approved higher version. One that served before and no longer does was taken out of service: it is
    not recommended again. `served` are the versions that were active or rolled out before, `minimum` the least
    improvement in per cent.
    """
    higher = [one for one in family.versions if one.status is Status.APPROVED and one.version > running.version]
    found = [
        _judged(running, one, withdrawn=one.adapter_id in served and not one.active, minimum=minimum) for one in higher
    ]
    return max(
        found,
        key=lambda update: (
            update.recommended,
            update.comparison.difference if update.recommended and update.comparison else 0.0,
            update.available.version,
        ),
        default=None,
    )


def _judged(running: Adapter, available: Adapter, *, withdrawn: bool, minimum: float) -> Update:
    ours, theirs = running.submission.base_model, available.submission.base_model
    if ours.revision != theirs.revision:
        mine, other = (f"{one.name} at {one.revision[:12]}" for one in (ours, theirs))
        why = f"not compatible: it is for {other}, and this one for {mine}"
        return Update(running, available, recommended=False, why=why)
    judgement = available.evaluation.judgement if available.evaluation else None
    comparison = judgement.comparison if judgement else None
    if judgement is None or comparison is None or comparison.compared_with != running.adapter_id:
        why = f"not compared with {running.adapter_id}; evaluate it while that one is active"
        return Update(running, available, recommended=False, why=why)
    improvement = 100 * comparison.difference / max(judgement.score - comparison.difference, 1.0)
    measured = (
        f"{comparison.difference:+.1f} points [{comparison.ci_low:.1f}, {comparison.ci_high:.1f}], "
        f"{improvement:+.1f} %, on {comparison.samples} samples"
    )
    if withdrawn:
        recommended, why = False, "it served before and was taken out of service"
    elif comparison.ci_low <= 0:
        recommended, why = False, f"not significantly better: {measured}"
    elif improvement <= minimum:
        recommended, why = False, f"better by no more than the policy's {minimum:g} %: {measured}"
    else:
        recommended, why = True, f"better: {measured}"
    return Update(running, available, recommended, why, comparison, improvement)
