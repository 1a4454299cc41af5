"""The registry's endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from fleet_events.v1 import NamedBy
from lorafleet.calls.paths import path_segment
from lorafleet.clients import Call, Query, Upload
from lorafleet.responses import (
    Adapter,
    AnswerProvenance,
    Anything,
    ApiKey,
    AuditLine,
    CreatedKey,
    FamilyAt,
    FamilyPage,
    FamilyRollouts,
    GarbageOfRegistry,
    Migration,
    ObjectsAdopted,
    Provenance,
    Refusal,
    RevokedTokens,
    Statistics,
    Update,
    UsageReport,
    VersionComparison,
)

_ADAPTER = TypeAdapter(Adapter)
_OBJECT = TypeAdapter(dict[str, object])
_ADAPTERS = TypeAdapter(list[Adapter])
_ANYTHING = TypeAdapter(Anything)
_ROLLOUTS = TypeAdapter(FamilyRollouts)


def adapters(
    domain: str | None = None,
    status: str | None = None,
    base_model: str | None = None,
    active: bool | None = None,
    *,
    family: str | None = None,
    limit: int | None = None,
) -> Call[list[Adapter]]:
    """Versions, filtered, newest first; `limit` at most 1000, 200 without it."""
    query: Query = {
        "domain": domain,
        "status": status,
        "base_model": base_model,
        "active": None if active is None else str(active).lower(),
        "family": family,
        "limit": limit,
    }
    return Call("registry", "GET", "/v1/adapters", _ADAPTERS, query, inside="adapters")


def families(
    domain: str | None = None,
    text: str = "",
    *,
    waiting: bool = False,
    serving: bool | None = None,
    base_model: str | None = None,
    score_below: float | None = None,
    sort: str = "family",
    offset: int = 0,
    limit: int = 50,
) -> Call[FamilyPage]:
    """Families with their active versions."""
    query: Query = {
        "domain": domain,
        "text": text,
        "waiting": "true" if waiting else None,
        "serving": None if serving is None else str(serving).lower(),
        "base_model": base_model,
        "score_below": score_below,
        "sort": sort,
        "offset": offset,
        "limit": limit,
    }
    return Call("registry", "GET", "/v1/families", TypeAdapter(FamilyPage), query)


def adapter(adapter_id: str) -> Call[Adapter]:
    """One version."""
    return Call("registry", "GET", f"/v1/adapters/{path_segment(adapter_id)}", _ADAPTER)


def provenance(adapter_id: str) -> Call[Provenance]:
    """The digest chain of a version."""
    return Call("registry", "GET", f"/v1/adapters/{path_segment(adapter_id)}/provenance", TypeAdapter(Provenance))


def answer_provenance(generation_id: str) -> Call[AnswerProvenance]:
    """The adapters that gave an answer, and their chains."""
    path = f"/v1/answers/{path_segment(generation_id)}/provenance"
    return Call("registry", "GET", path, TypeAdapter(AnswerProvenance))


def family_at(family: str, time: str, entries: int) -> Call[FamilyAt]:
    """What a family served at a moment; `time` is RFC 3339."""
    query: Query = {"time": time, "entries": str(entries)}
    return Call("registry", "GET", f"/v1/families/{path_segment(family)}/at", TypeAdapter(FamilyAt), query)


def manifest(adapter_id: str) -> Call[Anything]:
    """The catalogue entry of a version, with its formats."""
    return Call("registry", "GET", f"/v1/adapters/{path_segment(adapter_id)}/manifest", _ANYTHING)


def compare(adapter_ids: Sequence[str]) -> Call[VersionComparison]:
    """Versions against one another."""
    query: Query = {"versions": ",".join(adapter_ids)}
    return Call("registry", "GET", "/v1/compare", TypeAdapter(VersionComparison), query)


def decide(adapter_id: str, verb: str, reason: str, **further: object) -> Call[Adapter]:
    """approve, reject, activate, deactivate, hold or unhold a version.

    `seen={"status": …, "active": …}` refuses the first four where the version no longer stands like this.
    """
    path = f"/v1/adapters/{path_segment(adapter_id)}/{verb}"
    return Call("registry", "POST", path, _ADAPTER, body={"reason": reason, **further})


def collect_versions(*, apply: bool, at_most: int = 0) -> Call[GarbageOfRegistry]:
    """What retention rules let go and nothing refers to, of the registry; deleted where applied."""
    body = {"apply": apply, "at_most": at_most}
    return Call("registry", "POST", "/v1/gc", TypeAdapter(GarbageOfRegistry), body=body)


def adopt_objects(service: str) -> Call[ObjectsAdopted]:
    """Make the objects of a service those of the database that it has now."""
    return Call(service, "POST", "/v1/gc/adoption", TypeAdapter(ObjectsAdopted))


def updates(domain: str | None = None) -> Call[list[Update]]:
    """What runs where, and what is available and recommended for it."""
    return Call("registry", "GET", "/v1/updates", TypeAdapter(list[Update]), {"domain": domain}, inside="updates")


def migrate(adapter_id: str, to_base_model: str, strategy: str | None, reason: str) -> Call[Migration]:
    """Carry a version over to another base model."""
    body = {"adapter_id": adapter_id, "to_base_model": to_base_model, "strategy": strategy, "reason": reason}
    return Call("registry", "POST", "/v1/migrations", TypeAdapter(Migration), body=body)


def migrations(domain: str | None = None) -> Call[list[Migration]]:
    """Migrations to other base models, newest first."""
    answer = TypeAdapter(list[Migration])
    return Call("registry", "GET", "/v1/migrations", answer, {"domain": domain}, inside="migrations")


def set_metrics(adapter_id: str, metrics: Mapping[str, object], reason: str = "") -> Call[Adapter]:
    """Set, change or (None) remove metrics of one's own for a version."""
    path = f"/v1/adapters/{path_segment(adapter_id)}/metrics"
    return Call("registry", "PUT", path, _ADAPTER, body={"metrics": dict(metrics), "reason": reason})


def audit(adapter_id: str) -> Call[list[AuditLine]]:
    """Who did what with a version, when and why."""
    path = f"/v1/adapters/{path_segment(adapter_id)}/audit"
    return Call("registry", "GET", path, TypeAdapter(list[AuditLine]), inside="entries")


def policy_audit(domain: str) -> Call[list[AuditLine]]:
    """Who changed a domain's policy, when and from what to what."""
    path = f"/v1/policies/{path_segment(domain)}/audit"
    return Call("registry", "GET", path, TypeAdapter(list[AuditLine]), inside="entries")


def refusals(domain: str | None = None, limit: int = 100) -> Call[list[Refusal]]:
    """Finished trainings that could not be registered."""
    query: Query = {"domain": domain, "limit": limit}
    return Call("registry", "GET", "/v1/refusals", TypeAdapter(list[Refusal]), query, inside="refusals")


def statistics() -> Call[Statistics]:
    """Counts of versions, answers and ratings by domain."""
    return Call("registry", "GET", "/v1/statistics", TypeAdapter(Statistics))


def usage(month: str = "", domain: str | None = None) -> Call[UsageReport]:
    """What callers took of the fleet's answers in a month (as 2026-12; empty: the present one)."""
    return Call("registry", "GET", "/v1/usage", TypeAdapter(UsageReport), {"month": month, "domain": domain})


def rollout(family: str) -> Call[FamilyRollouts]:
    """The newest rollout of a family, with its evidence."""
    return Call("registry", "GET", f"/v1/families/{path_segment(family)}/rollout", _ROLLOUTS)


def start_rollout(family: str, candidate: str, mode: str | None = None, reason: str = "") -> Call[FamilyRollouts]:
    """Begin to roll out an approved version."""
    body = {"candidate": candidate, "mode": mode, "reason": reason}
    return Call("registry", "POST", f"/v1/families/{path_segment(family)}/rollout", _ROLLOUTS, body=body)


def move_rollout(family: str, move: str, reason: str = "") -> Call[FamilyRollouts]:
    """pause, resume, advance, promote or roll-back."""
    path = f"/v1/families/{path_segment(family)}/rollout/{move}"
    return Call("registry", "POST", path, _ROLLOUTS, body={"reason": reason})


def policy(domain: str) -> Call[dict[str, object]]:
    """The approval policy of a domain."""
    return Call("registry", "GET", f"/v1/policies/{path_segment(domain)}", _OBJECT)


def set_policy(domain: str, body: Mapping[str, object]) -> Call[dict[str, object]]:
    """Replace the approval policy of a domain."""
    return Call("registry", "PUT", f"/v1/policies/{path_segment(domain)}", _OBJECT, body=dict(body))


def register(files: Sequence[Path], fields: Mapping[str, str]) -> Call[Adapter]:
    """Upload a PEFT folder's files as a new version."""
    return Call("registry", "POST", "/v1/adapters", _ADAPTER, files=_parts(files), form=fields)


def import_files(files: Sequence[Path], fields: Mapping[str, str]) -> Call[Adapter]:
    """Upload an adapter's files, in any format, as a new version."""
    return Call("registry", "POST", "/v1/adapters/import", _ADAPTER, files=_parts(files), form=fields)


def import_from(source: str, fields: Mapping[str, str]) -> Call[Adapter]:
    """Have the registry fetch an adapter from its bucket or a model hub."""
    return Call("registry", "POST", "/v1/adapters/import", _ADAPTER, body={**fields, "source": source})


def _parts(files: Sequence[Path]) -> Upload:
    return [("files", (file.name, file.read_bytes(), "application/octet-stream")) for file in files]


def create_key(name: str, scopes: Sequence[str], domains: Sequence[str], seconds: int) -> Call[CreatedKey]:
    """Make an API key."""
    body = {"name": name, "scopes": list(scopes), "domains": list(domains), "expires_seconds": seconds}
    return Call("registry", "POST", "/v1/keys", TypeAdapter(CreatedKey), body=body)


def keys() -> Call[list[ApiKey]]:
    """API keys, newest first."""
    return Call("registry", "GET", "/v1/keys", TypeAdapter(list[ApiKey]), inside="keys")


def revoke_key(key_id: str, reason: str) -> Call[ApiKey]:
    """End an API key."""
    path = f"/v1/keys/{path_segment(key_id)}/revoke"
    return Call("registry", "POST", path, TypeAdapter(ApiKey), body={"reason": reason})


def revoke_tokens(jti: str, subject: str, reason: str) -> Call[RevokedTokens]:
    """Revoke a token by its id, or all of a subject."""
    body = {NamedBy.JTI.value: jti, NamedBy.SUBJECT.value: subject, "reason": reason}
    return Call("registry", "POST", "/v1/tokens/revoke", TypeAdapter(RevokedTokens), body=body)
