"""HTTP in: API keys, and tokens that are revoked before their end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from fleet_events.v1 import ApiKeyCreated, ApiKeyRevoked, NamedBy, TokenRevoked
from fleet_kit.api_keys import SUBJECT, ApiKey
from fleet_kit.caller import LONGEST_LIFE, Caller, checked_domains
from fleet_kit.collection import FleetAdmin
from fleet_kit.errors import Problem
from services.registry.access import Admin
from services.registry.credentials.schemas import CreatedKey, KeyList, KeyView, NewKey, Revocation, RevokedView
from services.registry.parts import ThisService
from services.registry.schemas import Reason
from services.registry.store import credentials
from services.registry.store.credentials import KeyRow

router = APIRouter()


@router.post("/keys", status_code=201, summary="Make an API key; its text is shown in this answer alone")
async def create_key(body: NewKey, caller: Admin, response: Response, service: ThisService) -> CreatedKey:
    """Its scopes and domains are at most those of the token that makes it. An API key makes no further ones."""
    scopes = tuple(dict.fromkeys(body.scopes))
    caller = caller.restricted_to(*scopes)
    caller.hold(*scopes)
    domains = _domains(body, caller)
    if caller.subject.startswith(SUBJECT):
        raise Problem(403, "Token needed", "an API key makes no API keys, or its end would end nothing; use a token")
    now = datetime.now(UTC)
    key, until = ApiKey.new(), now + timedelta(seconds=body.expires_seconds)
    row = KeyRow(key.key_id, body.name, scopes, domains, caller.subject, now, until)
    async with service.transaction() as tx:
        await credentials.lock_creator(tx.connection, caller.subject)
        if await credentials.count_live(tx.connection, caller.subject, now) >= service.settings.api_keys_a_creator:
            detail = f"{caller.subject!r} has {service.settings.api_keys_a_creator} API keys; revoke those not in use"
            raise Problem(409, "Too many API keys", detail)
        await credentials.add_key(tx.connection, row, key.secret_sha256)
        await tx.emit(
            ApiKeyCreated(
                key_id=key.key_id,
                secret_sha256=key.secret_sha256,
                scopes=scopes,
                domains=domains,
                expires_at=until,
                by=caller.subject,
            ),
            entity=f"key/{key.key_id}",
        )
    response.headers["Location"] = f"/v1/keys/{key.key_id}"
    return CreatedKey.with_text(row, key.text)


@router.get("/keys", summary="API keys of the caller's domains, newest first")
async def list_keys(caller: Admin, service: ThisService, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> KeyList:
    """Those that reach no domain beyond the token's. Their texts and digests are not shown."""
    async with service.db.acquire(timeout=5) as connection:
        found = await credentials.keys(connection, caller.domain_filter, limit)
    return KeyList(keys=[KeyView.model_validate(one) for one in found])


@router.post("/keys/{key_id}/revoke", summary="End an API key, on every service within seconds")
async def revoke_key(
    key_id: Annotated[str, Path(max_length=100)], body: Reason, caller: Admin, service: ThisService
) -> KeyView:
    now = datetime.now(UTC)
    async with service.transaction() as tx:
        found = await credentials.revoke_key(
            tx.connection, key_id, caller.domain_filter, by=caller.subject, at=now, reason=body.reason
        )
        if found is None:
            detail = f"no API key {key_id[:80]!r} in the domains of this token; GET /v1/keys lists them"
            raise Problem(404, "Unknown API key", detail, field="key_id")
        row, ends_now = found
        if ends_now:
            event = ApiKeyRevoked(key_id=key_id, by=caller.subject, reason=body.reason)
            await tx.emit(event, entity=f"key/{key_id}")
    return KeyView.model_validate(row)


@router.post("/tokens/revoke", summary="Revoke a token by its id, or all of a subject issued until now")
async def revoke_tokens(body: Revocation, caller: FleetAdmin, service: ThisService) -> RevokedView:
    """On every service within seconds. A token that the subject is given later is good."""
    if body.subject.startswith(SUBJECT):
        detail = f"{body.subject!r} is an API key; revoke it with POST /v1/keys/{{key_id}}/revoke"
        raise Problem(422, "Invalid request", detail, field="subject")
    now = datetime.now(UTC)
    named_by = NamedBy.JTI if body.jti else NamedBy.SUBJECT
    value, until = body.jti or body.subject, now + LONGEST_LIFE
    async with service.transaction() as tx:
        await credentials.forget_ended(tx.connection, now)
        await credentials.add_revoked_token(
            tx.connection, named_by, value, at=now, until=until, by=caller.subject, reason=body.reason
        )
        event = TokenRevoked(
            named_by=named_by, value=value, revoked_at=now, until=until, by=caller.subject, reason=body.reason
        )
        await tx.emit(event, entity="tokens")
    return RevokedView(named_by=named_by, value=value, revoked_at=now, until=until)


def _domains(body: NewKey, caller: Caller) -> tuple[str, ...]:
    """The key's domains; a Problem: 422 for what is no domain, 403 for one beyond the caller's."""
    try:
        named = sorted(checked_domains(body.domains))
    except ValueError as error:
        raise Problem(422, "Invalid request", str(error), field="domains") from error
    for domain in named:
        caller.reach(domain)
    return tuple(named)
