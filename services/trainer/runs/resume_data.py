"""Checkpoints of jobs below `trainer/resume/`: what a job may resume from, and nothing once it cannot."""

from datetime import timedelta

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.jobs import store
from services.trainer.runs.context import RunContext

_PREFIX = "trainer/resume/"
_MOST_OBJECTS = 100_000


async def drop(job_id: str, service: RunContext) -> int:
    """Remove all checkpoints of a job that has ended; returns how many there were.

    Raises:
        what the object store and the database raise: what is left then goes with the next sweep.
    """
    async with service.db.acquire(timeout=5) as connection:
        kept = await store.list_checkpoints(connection, job_id)
    for one in kept:
        # The object goes first: a record without it is found again, an object without a record only by its name.
        await service.blobs.delete(one.blob)
        async with service.db.acquire(timeout=5) as connection:
            await store.forget_checkpoint(connection, job_id, one.step)
    return len(kept)


async def sweep(service: RunContext) -> int:
    """Remove checkpoints of jobs that have ended, recorded or not; returns the number of objects.

    Those of a succeeded job go at once, those of a failed or cancelled one after `resume_hours`: a retry resumes from
    them. Jobs that wait, run or rest keep theirs.
    """
    grace = timedelta(hours=service.settings.resume_hours)
    async with service.db.acquire(timeout=5) as connection:
        ended = await _ended(connection, grace, [])
    removed = 0
    for job_id in ended:
        removed += await drop(job_id, service)
    # Of workers that died between an object and its record, and of versions that kept everything.
    objects = await service.blobs.find(_PREFIX, at_most=_MOST_OBJECTS)
    by_job: dict[str, list[str]] = {}
    for one in objects:
        by_job.setdefault(one.key.removeprefix(_PREFIX).partition("/")[0], []).append(one.key)
    async with service.db.acquire(timeout=5) as connection:
        ended = await _ended(connection, grace, sorted(by_job)) if by_job else []
    for job_id in ended:
        for key in by_job[job_id]:
            digest = key.rpartition("/")[2]
            await service.blobs.delete(v1.Blob(uri=f"s3://{service.settings.s3_bucket}/{key}", sha256=digest, bytes=0))
            removed += 1
    return removed


async def _ended(connection: Connection, grace: timedelta, job_ids: list[str]) -> list[str]:
    """Of these jobs, or of all with checkpoints where no id is given, those that cannot be resumed."""
    rows = await connection.fetch(
        """
        select job_id from jobs
        where (state = 'succeeded' or state in ('failed', 'cancelled') and finished_at < now() - $1::interval)
          and case when cardinality($2::text[]) > 0 then job_id = any($2)
              else exists (select from checkpoints where checkpoints.job_id = jobs.job_id) end
        """,
        grace,
        job_ids,
    )
    return [row["job_id"] for row in rows]
