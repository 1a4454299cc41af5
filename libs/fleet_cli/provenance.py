"""The digest chain of a version or an answer: a readable line a link, and whether all links are of one artifact."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_cli.past import activation_lines, version_lines
from lorafleet.responses import AnswerProvenance, Provenance, ServingAt

ELSEWHERE = "unknown, it was trained elsewhere"
"""What was trained here has both links from its registration on."""


def lines(chain: Provenance) -> list[str]:
    """Links in the order in which they were made; one that does not exist yet is `not yet`."""
    links = {
        "data set": _with(chain.dataset, "{sha256}  {samples} samples of {dataset_id}") or ELSEWHERE,
        "configuration": _with(chain.configuration, "{sha256}  job {job_id}") or ELSEWHERE,
        "base model": _with(chain.base_model, "{revision}  {name}"),
        "checkpoint": _with(chain.checkpoint, "{sha256}"),
        "artifact": _with(chain.artifact, "{sha256}  {bytes} bytes"),
        "evaluation": _with(
            chain.evaluation,
            "{score:.1f} [{ci_low:.1f}, {ci_high:.1f}] by {judge} on {golden_dataset_id} {golden_sha256}",
        ),
        "approval": _with(chain.approval, "{status} by {by}: {reason}"),
        "loaded": "; ".join(_with(one, "{artifact_sha256}  by {replica}") for one in chain.loaded),
        "answers": _with(chain.answers, "{count}"),
    }
    if chain.origin is not None:
        links = {"imported from": _with(chain.origin, "{source}  as {form}"), **links}
    shown = [f"  → {name:<14} {text or 'not yet'}" for name, text in links.items()]
    broken = breaks(chain)
    return [chain.adapter_id, *shown, *(f"  ✗ {one}" for one in broken)] + ([] if broken else ["  ✓ the chain holds"])


def answer_lines(found: AnswerProvenance) -> list[str]:
    """Who answered, then the chain of each adapter and of those that its training continued, then what is unknown."""
    base = _with(found.base_model, "{name} at revision {revision}") if found.base_model.get("revision") else ""
    who = " + ".join(f"{one.adapter_id} × {one.weight:g}" for one in found.adapters) or "the base model alone"
    shown = {
        "requested": found.requested_model,
        "answered": who,
        "base model": base or _with(found.base_model, "{name}"),
        "at": found.answered_at,
        "routed": found.routed,
        "fallback": found.fallback,
    }
    then = [
        line
        for one in found.adapters
        if one.when_answered
        for line in ("", f"{one.adapter_id} at that time", *_at_that_time(one.when_answered))
    ]
    chains = [line for one in found.adapters for chain in one.chain for line in ("", *lines(chain))]
    unknown = [*(text for one in found.adapters for text in one.unknown), *found.unknown]
    head = [found.generation_id, *(f"  → {name:<14} {text}" for name, text in shown.items() if text)]
    return [*head, *then, *chains, "", *(f"  ? {text}" for text in unknown)]


def _at_that_time(version: ServingAt) -> list[str]:
    return [*version_lines(version), *(activation_lines(version) if version.since else [])]


def breaks(chain: Provenance) -> list[str]:
    """Links that name another artifact than the registered one; none when the chain is intact."""
    wanted = chain.artifact.get("sha256")
    links = {"evaluation": chain.evaluation, "approval": chain.approval}
    links |= {f"replica {one.get('replica')}": one for one in chain.loaded}
    return [
        f"{name} names artifact {link.get('artifact_sha256')}, but {wanted} is registered"
        for name, link in links.items()
        if link is not None and link.get("artifact_sha256") != wanted
    ]


def _with(link: Mapping[str, object] | None, form: str) -> str:
    return form.format_map(link) if link else ""
