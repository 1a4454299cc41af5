"""The digest chain of a version: one readable line a link, and whether every link speaks of the same artifact."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_cli.client.responses import Provenance


def lines(chain: Provenance) -> list[str]:
    """Links in the order in which they were made; one that does not exist yet says so."""
    links = {
        "data set": _with(chain.dataset, "{sha256}  {samples} samples"),
        "configuration": _with(chain.configuration, "{sha256}  job {job_id}"),
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
        elsewhere = {name: links[name] or "unknown, it was trained elsewhere" for name in ("data set", "configuration")}
        links = {"imported from": _with(chain.origin, "{source}  as {form}"), **links, **elsewhere}
    shown = [f"  → {name:<14} {text or 'not yet'}" for name, text in links.items()]
    broken = breaks(chain)
    return [chain.adapter_id, *shown, *(f"  ✗ {one}" for one in broken)] + ([] if broken else ["  ✓ the chain holds"])


def breaks(chain: Provenance) -> list[str]:
    """Links that speak of another artifact than the registered one; none when the chain holds."""
    wanted = chain.artifact.get("sha256")
    said = {"evaluation": chain.evaluation, "approval": chain.approval}
    said |= {f"replica {one.get('replica')}": one for one in chain.loaded}
    return [
        f"{name} speaks of artifact {link.get('artifact_sha256')}, registered is {wanted}"
        for name, link in said.items()
        if link is not None and link.get("artifact_sha256") != wanted
    ]


def _with(link: Mapping[str, object] | None, form: str) -> str:
    return form.format_map(link) if link else ""
