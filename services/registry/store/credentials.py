"""API keys and revoked tokens: one SQL statement a function, connection first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from fleet_events.v1 import ApiKeyUse, NamedBy
from fleet_kit.db import Connection
from services.registry.store.listing import Domains


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key, without what it is verified by."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    domains: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    reason: str = ""


async def lock_creator(connection: Connection, subject: str) -> None:
    """Let one transaction at a time add keys of this subject."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('api_key'), hashtext($1))", subject)


async def count_live(connection: Connection, subject: str, now: datetime) -> int:
    """Keys of this subject that are good."""
    return int(
        await connection.fetchval(
            "select count(*) from api_key where created_by = $1 and revoked_at is null and expires_at > $2",
            subject,
            now,
        )
    )


async def add_key(connection: Connection, key: KeyRow, secret_sha256: str) -> None:
    """Keep a new key."""
    await connection.execute(
        """
        insert into api_key (key_id, name, secret_sha256, scopes, domains, created_by, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        key.key_id,
        key.name,
        secret_sha256,
        key.scopes,
        key.domains,
        key.created_by,
        key.created_at,
        key.expires_at,
    )


async def keys(connection: Connection, domains: Domains, limit: int) -> list[KeyRow]:
    """Keys that reach none but these domains (None: all keys), newest first."""
    rows = await connection.fetch(
        """
        select * from api_key where $1::text[] is null or domains <@ $1
        order by created_at desc, key_id limit $2
        """,
        domains,
        limit,
    )
    return [_key(row) for row in rows]


async def revoke_key(
    connection: Connection, key_id: str, domains: Domains, *, by: str, at: datetime, reason: str
) -> tuple[KeyRow, bool] | None:
    """End a key that reaches none but these domains; whether that is new. None where there is no such key."""
    row = await connection.fetchrow(
        """
        with before as (
            select key_id, revoked_at is null as live from api_key
            where key_id = $1 and ($2::text[] is null or domains <@ $2) for update
        )
        update api_key set revoked_at = coalesce(revoked_at, $4), revoked_by = coalesce(revoked_by, $3),
            reason = case when before.live then $5 else reason end
        from before where api_key.key_id = before.key_id
        returning api_key.*, before.live
        """,
        key_id,
        domains,
        by,
        at,
        reason,
    )
    return (_key(row), bool(row["live"])) if row else None


async def note_uses(connection: Connection, uses: Collection[ApiKeyUse]) -> None:
    """Keep when keys were last used."""
    await connection.execute(
        """
        update api_key set last_used_at = greatest(last_used_at, used.at)
        from unnest($1::text[], $2::timestamptz[]) as used (key_id, at) where api_key.key_id = used.key_id
        """,
        [one.key_id for one in uses],
        [one.used_at for one in uses],
    )


async def add_revoked_token(
    connection: Connection, named_by: NamedBy, value: str, *, at: datetime, until: datetime, by: str, reason: str
) -> None:
    """Keep that tokens are revoked; a later revocation of the same ones takes the place of an earlier."""
    await connection.execute(
        """
        insert into revoked_token (named_by, value, revoked_at, until, revoked_by, reason)
        values ($1, $2, $3, $4, $5, $6) on conflict (named_by, value) do update
        set revoked_at = excluded.revoked_at, until = excluded.until, revoked_by = excluded.revoked_by,
            reason = excluded.reason
        """,
        named_by.value,
        value,
        at,
        until,
        by,
        reason,
    )


async def forget_ended(connection: Connection, now: datetime) -> None:
    """Delete revocations of tokens that have all ended by themselves."""
    await connection.execute("delete from revoked_token where until < $1", now)


def _key(row: asyncpg.Record) -> KeyRow:
    def several(name: str) -> tuple[str, ...]:
        found: Sequence[str] = row[name]
        return tuple(found)

    return KeyRow(
        row["key_id"],
        row["name"],
        several("scopes"),
        several("domains"),
        row["created_by"],
        row["created_at"],
        row["expires_at"],
        row["last_used_at"],
        row["revoked_at"],
        row["revoked_by"],
        row["reason"],
    )
