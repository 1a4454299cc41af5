"""A family or a version as it stood at a moment, a readable line a fact."""

from __future__ import annotations

from collections.abc import Sequence

from lorafleet.responses import DecisionAt, FamilyAt, Link, ServingAt, VersionAt


def family_lines(found: FamilyAt) -> list[str]:
    """What served, by whose decision and on what evidence; the other versions; what was decided before and after."""
    serving = found.serving
    head = [f"{found.family} at {found.time}"]
    if serving is None:
        head.append("  → served         no version")
    else:
        head += [f"  → served         {serving.adapter_id}", *activation_lines(serving), *version_lines(serving)[1:]]
    if found.rollout is not None:
        told = found.rollout
        head.append(f"  → rolled out     {told['candidate']} by {told.get('mode')}, share {told.get('share')}")
    head.append(f"  → policy         {_policy(found.policy)}")
    others = [f"  {one.adapter_id}  {one.status}" for one in found.versions if not one.active]
    trails = [("decided before", found.before), ("decided after", found.after)]
    shown = [line for title, trail in trails if trail for line in ("", title, *_entries(trail))]
    return [*head, *(["", "other versions", *others] if others else []), *shown]


def activation_lines(serving: ServingAt) -> list[str]:
    """Since when a version answered for its family, by whose activation and why."""
    replaced = f", in place of {serving.replaced}" if serving.replaced else ""
    return [
        f"  → since          {serving.since} by {serving.activated_by}{replaced}",
        f"  → activated      {serving.activated_because or 'no reason given'}",
    ]


def version_lines(found: VersionAt) -> list[str]:
    """Whether a version served, and the decision about it."""
    state = f"{found.status}, {'active' if found.active else 'not active'}"
    return [f"  → state          {state}", *(_decision(found.decision) if found.decision else [])]


def _decision(decision: DecisionAt) -> list[str]:
    score = decision.evaluation
    found = {
        decision.action.replace("_", " "): f"{decision.at} by {decision.by}: {decision.reason or 'no reason given'}",
        "evidence": (
            "{score:.1f} [{ci_low:.1f}, {ci_high:.1f}], {evaluation_id} by {judge} on {golden_dataset_id} "
            "{golden_sha256}".format_map(score)
            + (" (inferred: the trail names no evaluation)" if decision.evidence == "inferred" else "")
            if score
            else "none"
        ),
        "decided under": _policy(decision.policy),
    }
    return [f"  → {name:<14} {text}" for name, text in found.items()]


def _policy(policy: Link) -> str:
    rules = policy.get("rules")
    if not isinstance(rules, dict):
        return "unknown"
    text = f"{rules.get('mode')}, approve at {rules.get('approve_at')}, reject below {rules.get('reject_below')}"
    if policy.get("source") == "default":
        return f"{text} (the default: nobody had set one)"
    return f"{text}, set by {policy.get('set_by')} at {policy.get('set_at')}" if policy.get("set_by") else text


def _entries(trail: Sequence[Link]) -> list[str]:
    return [f"  {one['at']}  {one['action']:<16} {one['subject']}  by {one['actor']}  {one['reason']}" for one in trail]
