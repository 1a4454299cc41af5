"""The trainer's SQL: one statement a function, connection first."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.dataset import Preference, Sample, StoredDataset
from services.trainer.domain import Job, JobState
from services.trainer.progress import Stepped


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in the object store."""

    step: int
    epoch: float
    blob: v1.Blob


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


async def add_job(connection: Connection, job: Job) -> bool:
    """Queue a job; False when its id is taken."""
    added = await connection.fetchval(
        """
        insert into jobs (job_id, domain, state, request, created_at) values ($1, $2, $3, $4, $5)
        on conflict do nothing returning true
        """,
        job.job_id,
        job.domain,
        job.state,
        job.request.model_dump(mode="json"),
        job.created_at,
    )
    return bool(added)


async def find_job(connection: Connection, job_id: str) -> Job | None:
    """A job by its id."""
    row = await connection.fetchrow("select * from jobs where job_id = $1", job_id)
    return _job(row) if row else None


async def locked(connection: Connection, job_id: str) -> Job:
    """A job that must be there, held against other writers until the transaction ends; raises LookupError."""
    row = await connection.fetchrow("select * from jobs where job_id = $1 for update", job_id)
    if row is None:
        raise LookupError(f"job {job_id} is not in the database")
    return _job(row)


async def list_jobs(connection: Connection, domains: Sequence[str] | None, state: str | None, limit: int) -> list[Job]:
    """The newest jobs of these domains (None: of all), in one state or any."""
    rows = await connection.fetch(
        """
        select * from jobs
        where ($1::text[] is null or domain = any($1)) and ($2::text is null or state = $2)
        order by created_at desc limit $3
        """,
        domains,
        state,
        limit,
    )
    return [_job(row) for row in rows]


async def save_job(connection: Connection, job: Job) -> None:
    """Write back a job that this transaction has locked."""
    await connection.execute(
        """
        update jobs set state = $2, dataset_id = $3, base_name = $4, base_revision = $5, attempts = $6, stalled = $7,
            step = $8, total_steps = $9, loss = $10, error = $11, cancel_by = $12, cancel_reason = $13,
            completed = $14, started_at = $15, finished_at = $16
        where job_id = $1
        """,
        job.job_id,
        job.state,
        job.dataset_id,
        job.base.name if job.base else "",
        job.base.revision if job.base else "",
        job.attempts,
        job.stalled,
        job.step,
        job.total_steps,
        job.loss,
        job.error,
        job.cancel_by,
        job.cancel_reason,
        job.completed.model_dump(mode="json") if job.completed else None,
        job.started_at,
        job.finished_at,
    )


async def cancel_wanted(connection: Connection, job_id: str) -> bool:
    """Whether somebody has asked to cancel the job."""
    return bool(await connection.fetchval("select cancel_by <> '' from jobs where job_id = $1", job_id))


async def add_steps(connection: Connection, job_id: str, steps: Sequence[Stepped]) -> None:
    """Record steps; a step done again after a resumption replaces its row."""
    await connection.executemany(
        """
        insert into steps (job_id, step, epoch, loss, learning_rate, gradient_norm, tokens, seconds)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (job_id, step) do update set epoch = excluded.epoch, loss = excluded.loss,
            learning_rate = excluded.learning_rate, gradient_norm = excluded.gradient_norm,
            tokens = excluded.tokens, seconds = excluded.seconds, recorded_at = now()
        """,
        [(job_id, s.step, s.epoch, s.loss, s.learning_rate, s.gradient_norm, s.tokens, s.seconds) for s in steps],
    )


async def list_steps(connection: Connection, job_id: str, after: int = 0) -> list[Stepped]:
    """The recorded steps of a job beyond `after`, in order."""
    rows = await connection.fetch(
        """
        select step, epoch, loss, learning_rate, gradient_norm, tokens, seconds from steps
        where job_id = $1 and step > $2 order by step
        """,
        job_id,
        after,
    )
    return [Stepped(**dict(row)) for row in rows]


async def add_checkpoint(connection: Connection, job_id: str, kept: StoredCheckpoint) -> None:
    """Record an uploaded checkpoint."""
    await connection.execute(
        """
        insert into checkpoints (job_id, step, epoch, uri, sha256, bytes) values ($1, $2, $3, $4, $5, $6)
        on conflict (job_id, step) do update
            set uri = excluded.uri, sha256 = excluded.sha256, bytes = excluded.bytes, created_at = now()
        """,
        job_id,
        kept.step,
        kept.epoch,
        kept.blob.uri,
        kept.blob.sha256,
        kept.blob.bytes,
    )


async def list_checkpoints(connection: Connection, job_id: str) -> list[StoredCheckpoint]:
    """The checkpoints of a job, newest first."""
    rows = await connection.fetch("select * from checkpoints where job_id = $1 order by step desc", job_id)
    return [
        StoredCheckpoint(row["step"], row["epoch"], v1.Blob(uri=row["uri"], sha256=row["sha256"], bytes=row["bytes"]))
        for row in rows
    ]


async def forget_checkpoint(connection: Connection, job_id: str, step: int) -> None:
    """Drop the record of a checkpoint."""
    await connection.execute("delete from checkpoints where job_id = $1 and step = $2", job_id, step)


def _dataset(row: asyncpg.Record) -> StoredDataset:
    blob = v1.Blob(uri=row["uri"], sha256=row["sha256"], bytes=row["bytes"])
    dataset = v1.Dataset(dataset_id=row["dataset_id"], blob=blob, samples=row["samples"])
    return StoredDataset(dataset, row["domain"], row["query"], row["min_rating"], row["created_at"])


def _job(row: asyncpg.Record) -> Job:
    return Job(
        job_id=row["job_id"],
        request=v1.TrainingRequested.model_validate(row["request"]),
        created_at=row["created_at"],
        state=JobState(row["state"]),
        dataset_id=row["dataset_id"],
        base=v1.BaseModel(name=row["base_name"], revision=row["base_revision"]) if row["base_name"] else None,
        attempts=row["attempts"],
        stalled=row["stalled"],
        step=row["step"],
        total_steps=row["total_steps"],
        loss=row["loss"],
        error=row["error"],
        cancel_by=row["cancel_by"],
        cancel_reason=row["cancel_reason"],
        completed=v1.TrainingCompleted.model_validate(row["completed"]) if row["completed"] else None,
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )
