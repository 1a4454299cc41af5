"""SQL of data sets and their versions: one statement a function, connection first."""

from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.datasets.dataset import StoredDataset


async def lock_name(connection: Connection, domain: str, name: str) -> None:
    """Keep other writers of this name's versions waiting until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 103))", domain, name)


async def add_dataset(connection: Connection, domain: str, dataset: v1.Dataset) -> None:
    """Record the content of a data set; the same content is recorded once. Its file is there, again if it was gone."""
    await connection.execute(
        """
        insert into datasets (dataset_id, domain, kind, samples, validation_samples, uri, sha256, bytes)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (dataset_id) do update set uri = excluded.uri, sha256 = excluded.sha256, bytes = excluded.bytes,
            removed_at = null, removed_because = ''
        where datasets.removed_at is not null
        """,
        dataset.dataset_id,
        domain,
        dataset.kind,
        dataset.samples,
        dataset.validation_samples,
        dataset.blob.uri,
        dataset.blob.sha256,
        dataset.blob.bytes,
    )


async def add_version(
    connection: Connection,
    domain: str,
    name: str,
    *,
    dataset_id: str,
    card: v1.Blob,
    query: str,
    min_rating: float | None,
) -> None:
    """Record the next version of a name, which the caller has locked."""
    await connection.execute(
        """
        insert into dataset_versions
            (domain, name, version, dataset_id, query, min_rating, card_uri, card_sha256, card_bytes)
        select $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, $6, $7, $8
        from dataset_versions where domain = $1 and name = $2
        """,
        domain,
        name,
        dataset_id,
        query,
        min_rating,
        card.uri,
        card.sha256,
        card.bytes,
    )


async def newest_version(connection: Connection, domain: str, name: str) -> StoredDataset | None:
    """The newest version of a name."""
    row = await connection.fetchrow(
        "select * from versioned_datasets where domain = $1 and name = $2 order by version desc limit 1",
        domain,
        name,
    )
    return _dataset(row) if row else None


async def find_dataset(connection: Connection, dataset_id: str) -> StoredDataset | None:
    """A data set by its id, as the newest version that has this content."""
    row = await connection.fetchrow(
        "select * from versioned_datasets where dataset_id = $1 order by created_at desc, version desc limit 1",
        dataset_id,
    )
    return _dataset(row) if row else None


async def list_versions(
    connection: Connection, domains: Sequence[str] | None, name: str | None, limit: int
) -> list[StoredDataset]:
    """The newest versions of these domains (None: of all), of one name or any."""
    rows = await connection.fetch(
        """
        select * from versioned_datasets
        where ($1::text[] is null or domain = any($1)) and ($2::text is null or name = $2)
        order by created_at desc, version desc limit $3
        """,
        domains,
        name,
        limit,
    )
    return [_dataset(row) for row in rows]


def _dataset(row: asyncpg.Record) -> StoredDataset:
    dataset = v1.Dataset(
        dataset_id=row["dataset_id"],
        blob=v1.Blob(uri=row["uri"], sha256=row["sha256"], bytes=row["bytes"]),
        samples=row["samples"],
        kind=row["kind"],
        validation_samples=row["validation_samples"],
        card=v1.Blob(uri=row["card_uri"], sha256=row["card_sha256"], bytes=row["card_bytes"]),
    )
    created_at: datetime = row["created_at"]
    return StoredDataset(
        dataset,
        row["domain"],
        row["query"],
        row["min_rating"],
        created_at.astimezone(UTC),
        row["name"],
        row["version"],
        row["removed_at"],
        row["removed_because"],
    )
