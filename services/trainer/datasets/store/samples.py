"""SQL of samples, preferences and uploads: one statement a function, connection first."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import asyncpg

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.datasets.dataset import Preference, Sample, StoredUpload


async def add_samples(connection: Connection, samples: Iterable[Sample], recorded_at: datetime) -> int:
    """Add what is new and return how many that were.

    Of two ratings of one sample the one recorded later stays, in any order of arrival.
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
            on conflict (sample_id) do update
                set rating = excluded.rating, rated_at = excluded.rated_at, changed_at = now()
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


async def add_upload(connection: Connection, upload: StoredUpload) -> StoredUpload:
    """Record an uploaded file; of the same bytes again it takes the newer name and format, the file stays the first."""
    (row,) = await connection.fetch(
        """
        insert into uploads (domain, upload_id, filename, format, uri, bytes) values ($1, $2, $3, $4, $5, $6)
        on conflict (domain, upload_id)
            do update set filename = excluded.filename, format = excluded.format, used_at = now()
        returning *
        """,
        upload.domain,
        upload.blob.sha256,
        upload.filename,
        upload.format,
        upload.blob.uri,
        upload.blob.bytes,
    )
    return upload_of(row)


async def find_upload(connection: Connection, domain: str, upload_id: str) -> StoredUpload | None:
    """An upload of a domain by its id."""
    row = await connection.fetchrow("select * from uploads where domain = $1 and upload_id = $2", domain, upload_id)
    if row is None:
        return None
    return upload_of(row)


async def touch_upload(connection: Connection, domain: str, upload_id: str) -> None:
    """An upload is used."""
    await connection.execute(
        "update uploads set used_at = now() where domain = $1 and upload_id = $2", domain, upload_id
    )


async def remove_expired_uploads(connection: Connection, unused: timedelta, at_most: int) -> list[StoredUpload]:
    """Forget uploads unused for so long that no open build names; their files are the caller's to delete."""
    rows = await connection.fetch(
        """
        delete from uploads using (
            select domain, upload_id from uploads old
            where used_at < now() - $1::interval and not exists (
                select from dataset_builds build
                where build.domain = old.domain and build.state in ('queued', 'running') and build.recipe
                    @> jsonb_build_object('sources', jsonb_build_array(jsonb_build_object('upload_id', old.upload_id)))
            )
            limit $2 for update of old skip locked
        ) expired
        where uploads.domain = expired.domain and uploads.upload_id = expired.upload_id
        returning uploads.*
        """,
        unused,
        at_most,
    )
    return [upload_of(row) for row in rows]


async def list_uploads(connection: Connection, domains: Sequence[str] | None, limit: int) -> list[StoredUpload]:
    """The newest uploads of these domains (None: of all)."""
    rows = await connection.fetch(
        "select * from uploads where $1::text[] is null or domain = any($1) order by created_at desc limit $2",
        domains,
        limit,
    )
    return [upload_of(row) for row in rows]


async def remove_upload(connection: Connection, domain: str, upload_id: str) -> StoredUpload | None:
    """Forget an upload; its file is the caller's to delete. None where there is none."""
    row = await connection.fetchrow(
        "delete from uploads where domain = $1 and upload_id = $2 returning *", domain, upload_id
    )
    return upload_of(row) if row else None


def upload_of(row: asyncpg.Record) -> StoredUpload:
    """The upload of a row of uploads."""
    blob = v1.Blob(uri=row["uri"], sha256=row["sha256"] or row["upload_id"], bytes=row["bytes"])
    named = (row["domain"], row["filename"], row["format"])
    return StoredUpload(*named, blob, row["created_at"], row["upload_id"], tuple(row["erased_by"]))
