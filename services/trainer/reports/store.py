"""SQL of what is watched: steps and validations in pages, jobs counted. One statement a function, connection first."""

from fleet_kit.db import Connection
from services.trainer.training.protocol import Stepped, Validated


async def steps_after(connection: Connection, job_id: str, after: int, limit: int) -> list[Stepped]:
    """The next recorded steps of a job beyond `after`, in order, at most `limit`."""
    rows = await connection.fetch(
        """
        select step, epoch, loss, learning_rate, gradient_norm, tokens, seconds, peak_memory_bytes from steps
        where job_id = $1 and step > $2 order by step limit $3
        """,
        job_id,
        after,
        limit,
    )
    return [Stepped(**dict(row)) for row in rows]


async def validations_after(connection: Connection, job_id: str, after: int, limit: int) -> list[Validated]:
    """The next recorded validations of a job beyond step `after`, in order, at most `limit`."""
    rows = await connection.fetch(
        """
        select step, epoch, loss, seconds, best, metrics from validations
        where job_id = $1 and step > $2 order by step limit $3
        """,
        job_id,
        after,
        limit,
    )
    return [Validated(**dict(row)) for row in rows]


async def count_stored(connection: Connection) -> dict[str, int]:
    """Bytes in the object store by what they are for: uploads, checkpoints, data sets."""
    rows = await connection.fetch(
        """
        select 'uploads' as what, coalesce(sum(bytes), 0)::bigint as bytes from uploads
        union all select 'resume', coalesce(sum(bytes), 0)::bigint from checkpoints
        union all select 'datasets', coalesce(sum(bytes), 0)::bigint from datasets
        """
    )
    return {row["what"]: row["bytes"] for row in rows}


async def count_builds(connection: Connection) -> dict[str, int]:
    """How many builds wait and how many run."""
    rows = await connection.fetch(
        """
        select state, count(*) as builds from dataset_builds where state in ('queued', 'running') group by state
        """
    )
    return {row["state"]: row["builds"] for row in rows}


async def count_jobs(connection: Connection) -> dict[str, int]:
    """How many jobs are in each state that any is in."""
    rows = await connection.fetch("select state, count(*) as jobs from jobs group by state")
    return {row["state"]: row["jobs"] for row in rows}
