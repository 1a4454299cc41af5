"""SQL of retraining rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from fleet_kit.db import Connection
from services.trainer.retraining.rules import RetrainingRules


@dataclass(frozen=True)
class StoredRules:
    """A domain's rules, who set them and when."""

    domain: str
    rules: RetrainingRules
    set_by: str
    set_at: datetime


async def lock_domain(connection: Connection, domain: str) -> None:
    """Keep other evaluations and changes of this domain's rules waiting until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 107))", domain)


async def save(connection: Connection, domain: str, rules: RetrainingRules, by: str) -> StoredRules:
    """Set a domain's rules. The same rules again keep who set them and when."""
    (row,) = await connection.fetch(
        """
        insert into retraining_rules as held (domain, rules, set_by) values ($1, $2, $3)
        on conflict (domain) do update set rules = $2,
            set_by = case when held.rules = $2 then held.set_by else $3 end,
            set_at = case when held.rules = $2 then held.set_at else now() end
        returning *
        """,
        domain,
        rules.model_dump(mode="json"),
        by,
    )
    return _stored(row)


async def find(connection: Connection, domain: str) -> StoredRules | None:
    """A domain's rules."""
    row = await connection.fetchrow("select * from retraining_rules where domain = $1", domain)
    return _stored(row) if row else None


async def list_domains(connection: Connection) -> list[str]:
    """Domains with rules."""
    rows = await connection.fetch("select domain from retraining_rules order by domain")
    return [row["domain"] for row in rows]


async def list_rules(connection: Connection, domains: Sequence[str] | None) -> list[StoredRules]:
    """The rules of these domains (None: of all), by domain."""
    rows = await connection.fetch(
        "select * from retraining_rules where $1::text[] is null or domain = any($1) order by domain", domains
    )
    return [_stored(row) for row in rows]


def _stored(row: asyncpg.Record) -> StoredRules:
    return StoredRules(row["domain"], RetrainingRules.model_validate(row["rules"]), row["set_by"], row["set_at"])
