"""SQL of what learned from the records of a person: data sets, their cards, jobs and adapters. Connection first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from fleet_events import v1
from fleet_kit.db import Connection


@dataclass(frozen=True)
class ScannedDataset:
    """A data set whose file may hold records of the person."""

    dataset_id: str
    blob: v1.Blob


async def datasets_to_scan(connection: Connection, domain: str, since: datetime | None) -> list[ScannedDataset]:
    """Data sets of a domain ("*": of all) whose files are kept; those that were frozen since then."""
    rows = await connection.fetch(
        """
        select dataset_id, uri, sha256, bytes from datasets
        where ($1 = '*' or domain = $1) and removed_at is null and ($2::timestamptz is null or created_at > $2)
        order by created_at
        """,
        domain,
        since,
    )
    return [_scanned(row) for row in rows]


async def removed_for(connection: Connection, because: str) -> list[ScannedDataset]:
    """Data sets that were removed for a reason."""
    rows = await connection.fetch(
        "select dataset_id, uri, sha256, bytes from datasets where removed_because = $1 order by created_at", because
    )
    return [_scanned(row) for row in rows]


async def cards_of(connection: Connection, dataset_ids: Sequence[str]) -> list[v1.Blob]:
    """Cards of all versions of data sets."""
    rows = await connection.fetch(
        "select distinct card_uri, card_sha256, card_bytes from dataset_versions where dataset_id = any($1)",
        dataset_ids,
    )
    return [v1.Blob(uri=row["card_uri"], sha256=row["card_sha256"], bytes=row["card_bytes"]) for row in rows]


async def stop_jobs(connection: Connection, dataset_ids: Sequence[str], reason: str) -> None:
    """Have the jobs cancelled that are training on data sets."""
    await connection.execute(
        """
        update jobs set cancel_by = 'erasure', cancel_reason = $2
        where dataset_id = any($1) and state = 'running' and cancel_by = ''
        """,
        dataset_ids,
        reason,
    )


async def learned_from(connection: Connection, dataset_ids: Sequence[str]) -> list[str]:
    """Adapters that were trained on data sets, those that continued one of them or learned its answers, and so on."""
    rows = await connection.fetch(
        """
        with recursive learned as (
            select job_id from jobs where dataset_id = any($1)
            union
            select jobs.job_id from jobs
                left join adapters teacher on teacher.adapter_id = jobs.request->>'distilFrom'
                join learned on learned.job_id in (jobs.continued->>'job_id', teacher.job_id)
        )
        select adapter_id from adapters join learned using (job_id) order by adapter_id
        """,
        dataset_ids,
    )
    return [row["adapter_id"] for row in rows]


async def is_retrained(connection: Connection, domain: str) -> bool:
    """Whether a domain ("*": any) has retraining rules."""
    return bool(
        await connection.fetchval(
            "select exists (select from retraining_rules where $1 in (domain, '*') and (rules->>'enabled')::boolean)",
            domain,
        )
    )


def _scanned(row: asyncpg.Record) -> ScannedDataset:
    return ScannedDataset(row["dataset_id"], v1.Blob(uri=row["uri"], sha256=row["sha256"], bytes=row["bytes"]))
