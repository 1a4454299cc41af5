"""Who may call the trainer over HTTP, and which domains that shows."""

from typing import Annotated

from fastapi import Depends, Query

from fleet_kit.auth import Caller, require
from fleet_kit.errors import Problem
from services.trainer.jobs import store
from services.trainer.jobs.domain import Job
from services.trainer.parts import Trainer

Trains = Annotated[Caller, Depends(require("train"))]
Limit = Annotated[int, Query(ge=1, le=1000)]


async def visible_job(job_id: str, caller: Trains, trainer: Trainer) -> Job:
    """A job of one of the caller's domains; another tenant's job reads like none, so that ids tell nothing."""
    async with trainer.db.acquire(timeout=5) as connection:
        job = await store.find_job(connection, job_id)
    if job is None or not caller.reaches(job.domain):
        raise Problem(404, "Job not found", f"no job {job_id!r} that this token reaches")
    return job


VisibleJob = Annotated[Job, Depends(visible_job)]
