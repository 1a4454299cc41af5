"""SQL of jobs, their steps and checkpoints: one statement a function, connection first."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
from pydantic import TypeAdapter

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.jobs.continuation import Continuation
from services.trainer.jobs.domain import Job, JobState, PastAttempt
from services.trainer.training.protocol import Stepped, Validated

_history = TypeAdapter(tuple[PastAttempt, ...])
_continued = TypeAdapter(Continuation | None)


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in the object store."""

    step: int
    epoch: float
    blob: v1.Blob


async def add_job(connection: Connection, job: Job) -> bool:
    """Queue a job; False when its id is taken."""
    added = await connection.fetchval(
        """
        insert into jobs (job_id, domain, state, request, created_at, priority, continued, targets)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict do nothing returning true
        """,
        job.job_id,
        job.domain,
        job.state,
        job.request.model_dump(mode="json"),
        job.created_at,
        job.priority,
        _continued.dump_python(job.continued, mode="json"),
        list(job.targets),
    )
    return bool(added)


async def find_job(connection: Connection, job_id: str) -> Job | None:
    """A job by its id."""
    row = await connection.fetchrow("select * from jobs where job_id = $1", job_id)
    return job_of(row) if row else None


async def locked(connection: Connection, job_id: str) -> Job:
    """A job that must be there, held against other writers until the transaction ends; raises LookupError."""
    row = await connection.fetchrow("select * from jobs where job_id = $1 for update", job_id)
    if row is None:
        raise LookupError(f"job {job_id} is not in the database")
    return job_of(row)


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
    return [job_of(row) for row in rows]


async def save_job(connection: Connection, job: Job) -> None:
    """Write back a job that this transaction has locked."""
    await connection.execute(
        """
        update jobs set state = $2, dataset_id = $3, base_name = $4, base_revision = $5, attempts = $6, stalled = $7,
            step = $8, total_steps = $9, loss = $10, error = $11, cancel_by = $12, cancel_reason = $13,
            completed = $14, started_at = $15, finished_at = $16, pause_by = $17, pause_reason = $18, history = $19,
            continued = $20, targets = $21
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
        job.pause_by,
        job.pause_reason,
        _history.dump_python(job.history, mode="json"),
        _continued.dump_python(job.continued, mode="json"),
        list(job.targets),
    )


async def requested_stops(connection: Connection, job_id: str) -> tuple[bool, bool]:
    """Whether cancelling the job was requested, and whether pausing it."""
    row = await connection.fetchrow("select cancel_by <> '', pause_by <> '' from jobs where job_id = $1", job_id)
    return (bool(row[0]), bool(row[1])) if row else (False, False)


async def add_adapter(connection: Connection, event: v1.AdapterRegistered) -> None:
    """Keep what a registered adapter is and which job made it."""
    await connection.execute(
        """
        insert into adapters (adapter_id, domain, job_id, registered) values ($1, $2, $3, $4) on conflict do nothing
        """,
        event.adapter.adapter_id,
        event.adapter.domain,
        event.job_id,
        event.model_dump(mode="json"),
    )


async def find_adapter(connection: Connection, adapter_id: str) -> v1.AdapterRegistered | None:
    """What was registered under this id."""
    row = await connection.fetchrow("select registered from adapters where adapter_id = $1", adapter_id)
    return v1.AdapterRegistered.model_validate(row["registered"]) if row else None


async def is_released(connection: Connection, job_id: str) -> bool:
    """Whether the registry has let the files of a job go."""
    return bool(await connection.fetchval("select exists (select from releases where job_id = $1)", job_id))


async def add_steps(connection: Connection, job_id: str, steps: Sequence[Stepped]) -> None:
    """Record steps; a step done again after a resumption replaces its row."""
    await connection.executemany(
        """
        insert into steps (job_id, step, epoch, loss, learning_rate, gradient_norm, tokens, seconds,
            peak_memory_bytes)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (job_id, step) do update set epoch = excluded.epoch, loss = excluded.loss,
            learning_rate = excluded.learning_rate, gradient_norm = excluded.gradient_norm,
            tokens = excluded.tokens, seconds = excluded.seconds,
            peak_memory_bytes = excluded.peak_memory_bytes, recorded_at = now()
        """,
        [
            (
                job_id,
                s.step,
                s.epoch,
                s.loss,
                s.learning_rate,
                s.gradient_norm,
                s.tokens,
                s.seconds,
                s.peak_memory_bytes,
            )
            for s in steps
        ],
    )


async def list_steps(connection: Connection, job_id: str, after: int = 0) -> list[Stepped]:
    """The recorded steps of a job beyond `after`, in order."""
    rows = await connection.fetch(
        """
        select step, epoch, loss, learning_rate, gradient_norm, tokens, seconds, peak_memory_bytes from steps
        where job_id = $1 and step > $2 order by step
        """,
        job_id,
        after,
    )
    return [Stepped(**dict(row)) for row in rows]


async def add_validations(connection: Connection, job_id: str, validations: Sequence[Validated]) -> None:
    """Record validations; one done again after a resumption replaces its row."""
    await connection.executemany(
        """
        insert into validations (job_id, step, epoch, loss, seconds, best, metrics)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (job_id, step) do update set epoch = excluded.epoch, loss = excluded.loss,
            seconds = excluded.seconds, best = excluded.best, metrics = excluded.metrics, recorded_at = now()
        """,
        [(job_id, v.step, v.epoch, v.loss, v.seconds, v.best, v.metrics) for v in validations],
    )


async def list_validations(connection: Connection, job_id: str, after: int = 0) -> list[Validated]:
    """The recorded validations of a job beyond step `after`, in order."""
    rows = await connection.fetch(
        """
        select step, epoch, loss, seconds, best, metrics from validations
        where job_id = $1 and step > $2 order by step
        """,
        job_id,
        after,
    )
    return [Validated(**dict(row)) for row in rows]


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


def job_of(row: asyncpg.Record) -> Job:
    """The job of a row of jobs."""
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
        pause_by=row["pause_by"],
        pause_reason=row["pause_reason"],
        history=_history.validate_python(row["history"]),
        continued=_continued.validate_python(row["continued"]),
        targets=tuple(row["targets"]),
    )
