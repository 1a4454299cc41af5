"""How many jobs of one domain may wait, run or be paused, and how long its trainings may take in a month."""

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
    hours = settings.training_hours_per_month.get(domain, settings.training_hours_per_month.get("*"))
    if hours is not None and await _seconds_this_month(connection, domain) >= hours * 3600:
        raise quotas.spent(domain, "TRAINING_HOURS_PER_MONTH", hours, "hours of training a month, and has taken them")


async def _seconds_this_month(connection: Connection, domain: str) -> float:
    """What the steps of the domain's jobs took since the month began, in UTC."""
    return float(
        await connection.fetchval(
            """
            with month as (select date_trunc('month', now(), 'UTC') as began)
            select coalesce(sum(steps.seconds), 0) from jobs join steps using (job_id), month
            where jobs.domain = $1 and coalesce(jobs.finished_at, now()) >= month.began
                and steps.recorded_at >= month.began
            """,
            domain,
        )
    )
