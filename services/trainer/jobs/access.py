"""Jobs by their id, as far as the caller's token shows them."""

from typing import Annotated

from fastapi import Depends

from fleet_kit.errors import Problem
from services.trainer.http_access import Trains
from services.trainer.jobs import store
from services.trainer.jobs.context import Jobs
from services.trainer.jobs.domain import Job


async def visible_job(job_id: str, caller: Trains, trainer: Jobs) -> Job:
    """A job of one of the caller's domains; another tenant's job reads like none, so that ids reveal nothing."""
    async with trainer.db.acquire(timeout=5) as connection:
        job = await store.find_job(connection, job_id)
    if job is None or not caller.reaches(job.domain):
        raise Problem(404, "Job not found", f"unknown job {job_id!r} in the domains of this token; see GET /v1/jobs")
    return job


VisibleJob = Annotated[Job, Depends(visible_job)]
