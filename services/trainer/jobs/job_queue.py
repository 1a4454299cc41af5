"""Which waiting job is next: one statement a function, connection first.

The database holds the queue. A TrainingQueued is a ticket: its receiver claims the best job that waits, which
need not be the one that the ticket was written for. A job waits while it is queued, and while it counts as running but
no live worker has its lease.
"""

from fleet_events import v1
from fleet_events.topology import row_of
from fleet_kit.db import Connection
from services.trainer.jobs.domain import Job
from services.trainer.jobs.store import job_of


def lease_of(job_id: str) -> str:
    """Name of the lease that the worker of a job holds."""
    return f"job:{job_id}"


async def next_job(connection: Connection) -> Job | None:
    """The waiting job of highest priority, of equal ones the oldest, locked until the transaction ends.

    Jobs whose rows other transactions have are passed over. Whether it is still free its lease alone decides: another
    worker may have claimed it after this statement began.
    """
    row = await connection.fetchrow(
        """
        select * from jobs
        where state in ('queued', 'running')
          and not exists (select from lease where name = 'job:' || jobs.job_id and expires_at > now())
        order by priority desc, created_at, job_id
        limit 1
        for update skip locked
        """
    )
    return job_of(row) if row else None


async def any_waits(connection: Connection) -> bool:
    """Whether a job waits. One that is queued does, even while the worker that paused it is about to let go of it."""
    return bool(
        await connection.fetchval(
            """
            select exists (
                select from jobs
                where state = 'queued' or state = 'running' and not exists (
                    select from lease where name = 'job:' || jobs.job_id and expires_at > now())
            )
            """
        )
    )


async def count_open(connection: Connection) -> tuple[int, int]:
    """Jobs that wait or are trained, each of which needs a ticket, and tickets that the relay has not published yet."""
    row = await connection.fetchrow(
        """
        select (select count(*) from jobs where state in ('queued', 'running')),
            (select count(*) from outbox where published_at is null and subject = $1)
        """,
        row_of(v1.TrainingQueued).subject,
    )
    return (int(row[0]), int(row[1])) if row else (0, 0)


async def oldest_waiting(connection: Connection, at_most: int) -> list[Job]:
    """Jobs that wait, those first that have waited longest."""
    rows = await connection.fetch(
        """
        select * from jobs
        where state in ('queued', 'running')
          and not exists (select from lease where name = 'job:' || jobs.job_id and expires_at > now())
        order by created_at, job_id
        limit $1
        """,
        at_most,
    )
    return [job_of(row) for row in rows]
