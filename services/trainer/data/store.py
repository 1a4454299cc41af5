"""SQL of samples, preferences and data sets: one statement a function, connection first."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime

import asyncpg

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.data.dataset import Preference, Sample, StoredDataset


async def add_samples(connection: Connection, samples: Iterable[Sample], recorded_at: datetime) -> int:
    """Add what is new and return how many that were.

    Of two ratings of one sample the one recorded later stays, in whatever order they come.
    """
    by_id: dict[str, Sample] = {}
    for sample in samples:
        if sample.rating is not None or sample.sample_id not in by_id:
            by_id[sample.sample_id] = sample
    added = await connection.fetchval(
        """
        with given as (
            select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::text[], $7::text[])
                as t (sample_id, domain, prompt, completion, rating, origin, source_id)
        ), written as (
            insert into samples (sample_id, domain, prompt, completion, rating, rated_at, origin, source_id)
            select sample_id, domain, prompt, completion, rating, case when rating is not null then $8::timestamptz end,
                origin, source_id
            from given order by sample_id
            on conflict (sample_id) do update set rating = excluded.rating, rated_at = excluded.rated_at
            where excluded.rating is not null
              and (samples.rated_at is null or samples.rated_at < excluded.rated_at)
            returning xmax = 0 as fresh
        )
        select count(*) filter (where fresh) from written
        """,
        list(by_id),
        [sample.domain for sample in by_id.values()],
        [sample.prompt for sample in by_id.values()],
        [sample.completion for sample in by_id.values()],
        [sample.rating for sample in by_id.values()],
        [sample.origin for sample in by_id.values()],
        [sample.source_id for sample in by_id.values()],
        recorded_at,
    )
    return int(added)


async def add_preference(connection: Connection, preference: Preference) -> None:
    """Add a preference pair unless it is there."""
    await connection.execute(
        """
        insert into preferences (preference_id, domain, prompt, chosen, rejected, origin)
        values ($1, $2, $3, $4, $5, $6) on conflict do nothing
        """,
        preference.preference_id,
        preference.domain,
        preference.prompt,
        preference.chosen,
        preference.rejected,
        preference.origin,
    )


async def count_samples(connection: Connection, domain: str) -> int:
    """Samples of a domain."""
    return int(await connection.fetchval("select count(*) from samples where domain = $1", domain))


async def select_samples(
    connection: Connection, domain: str, query: str, min_rating: float | None
) -> AsyncIterator[Sample]:
    """Samples of a domain that match a full-text query (empty: all) and are not rated below the floor.

    The query has the form of web searches: words that must all occur, "phrases", or, -not.
    """
    async for row in connection.cursor(
        """
        select domain, prompt, completion, rating, origin, source_id from samples
        where domain = $1
          and ($2 = '' or document @@ websearch_to_tsquery('simple', $2))
          and ($3::float8 is null or rating is null or rating >= $3)
        order by sample_id
        """,
        domain,
        query,
        min_rating,
    ):
        yield Sample(**dict(row))


async def add_dataset(connection: Connection, stored: StoredDataset) -> None:
    """Record a frozen data set; the same content is one data set, whichever selection made it."""
    await connection.execute(
        """
        insert into datasets (dataset_id, domain, query, min_rating, samples, uri, sha256, bytes)
        values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing
        """,
        stored.dataset.dataset_id,
        stored.domain,
        stored.query,
        stored.min_rating,
        stored.dataset.samples,
        stored.dataset.blob.uri,
        stored.dataset.blob.sha256,
        stored.dataset.blob.bytes,
    )


async def find_dataset(connection: Connection, dataset_id: str) -> StoredDataset | None:
    """A data set by its id."""
    row = await connection.fetchrow("select * from datasets where dataset_id = $1", dataset_id)
    return _dataset(row) if row else None


async def list_datasets(connection: Connection, domains: Sequence[str] | None, limit: int) -> list[StoredDataset]:
    """The newest data sets of these domains (None: of all)."""
    rows = await connection.fetch(
        "select * from datasets where $1::text[] is null or domain = any($1) order by created_at desc limit $2",
        domains,
        limit,
    )
    return [_dataset(row) for row in rows]


def _dataset(row: asyncpg.Record) -> StoredDataset:
    blob = v1.Blob(uri=row["uri"], sha256=row["sha256"], bytes=row["bytes"])
    dataset = v1.Dataset(dataset_id=row["dataset_id"], blob=blob, samples=row["samples"])
    return StoredDataset(dataset, row["domain"], row["query"], row["min_rating"], row["created_at"])
