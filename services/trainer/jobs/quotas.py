"""How many jobs of one domain may wait, run or be paused."""

from fleet_kit.db import Connection
from services.trainer import quotas
from services.trainer.jobs.settings import JobSettings


async def check_job(connection: Connection, domain: str, settings: JobSettings, *, but: str = "") -> None:
    """Whether a domain may queue a job; raises a 429 `Problem` that names the quota. The job `but` is not counted."""
    await quotas.lock(connection, "jobs", domain)
    held = await connection.fetchval(
        "select count(*) from jobs where domain = $1 and job_id <> $2 and state in ('queued', 'running', 'paused')",
        domain,
        but,
    )
    if held >= settings.open_jobs_per_domain:
        limit = settings.open_jobs_per_domain
        raise quotas.busy(domain, "OPEN_JOBS_PER_DOMAIN", limit, "jobs that have not ended")
