"""What one domain may take of the trainer: quotas, asked before a thing is accepted, under a lock of its domain.

The database counts, so that quotas hold over all trainers.
"""

from typing import Literal

from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.trainer.settings import TrainerSettings

Kind = Literal["uploads", "builds", "jobs"]


async def check_upload(connection: Connection, domain: str, more: int, settings: TrainerSettings) -> None:
    """Whether a domain may store an upload of `more` bytes; raises a 409 `Problem` that names the quota."""
    await _lock(connection, "uploads", domain)
    row = await connection.fetchrow(
        "select count(*) as files, coalesce(sum(bytes), 0) as bytes from uploads where domain = $1", domain
    )
    files, held = (int(row["files"]), int(row["bytes"])) if row else (0, 0)
    if files >= settings.uploads_per_domain:
        raise _full(domain, "UPLOADS_PER_DOMAIN", settings.uploads_per_domain, "uploads")
    if held + more > settings.upload_bytes_per_domain:
        limit = settings.upload_bytes_per_domain
        raise _full(domain, "UPLOAD_BYTES_PER_DOMAIN", limit, "bytes of uploads")


async def check_build(connection: Connection, domain: str, settings: TrainerSettings) -> None:
    """Whether a domain may queue a build; raises a 429 `Problem` that names the quota."""
    await _lock(connection, "builds", domain)
    held = await connection.fetchval(
        "select count(*) from dataset_builds where domain = $1 and state in ('queued', 'running')", domain
    )
    if held >= settings.open_builds_per_domain:
        limit = settings.open_builds_per_domain
        raise _busy(domain, "OPEN_BUILDS_PER_DOMAIN", limit, "builds that wait or run")


async def check_job(connection: Connection, domain: str, settings: TrainerSettings, *, but: str = "") -> None:
    """Whether a domain may queue a job; raises a 429 `Problem` that names the quota. The job `but` is not counted."""
    await _lock(connection, "jobs", domain)
    held = await connection.fetchval(
        "select count(*) from jobs where domain = $1 and job_id <> $2 and state in ('queued', 'running', 'paused')",
        domain,
        but,
    )
    if held >= settings.open_jobs_per_domain:
        limit = settings.open_jobs_per_domain
        raise _busy(domain, "OPEN_JOBS_PER_DOMAIN", limit, "jobs that have not ended")


def _full(domain: str, quota: str, limit: int, what: str) -> Problem:
    return _reached(409, domain, quota, limit, f"{what}; delete some that are no longer needed")


def _busy(domain: str, quota: str, limit: int, what: str) -> Problem:
    return _reached(429, domain, quota, limit, f"{what}; wait until some have ended, or cancel them")


def _reached(status: int, domain: str, quota: str, limit: int, detail: str) -> Problem:
    setting = f"LORAFLEET_{quota}"
    text = f"domain {domain!r} may have {limit} {detail} ({setting})"
    return Problem(status, "Quota reached", text, field="domain", quota=setting, limit=limit)


async def _lock(connection: Connection, kind: Kind, domain: str) -> None:
    # Two requests at once would both count what is there before either has added to it.
    await connection.execute("select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 105))", kind, domain)
