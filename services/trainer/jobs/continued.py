"""Finds the adapter that a request wants trained further, by its own id or by that of the job that made it."""

import json

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.jobs import store
from services.trainer.jobs.continuation import Continuation
from services.trainer.training.configuration import Fault, InvalidRequest


async def find_continued(
    connection: Connection, request: v1.TrainingRequested, base: v1.BaseModel
) -> Continuation | None:
    """What the request continues; None for a new adapter.

    Raises:
        InvalidRequest: it is unknown, of another domain, unfinished, or made for other weights of the base model.
    """
    asked = request.continue_from
    if not asked:
        return None

    def fault(expected: str) -> InvalidRequest:
        return InvalidRequest((Fault("continue_from", asked, expected),))

    adapter = await store.find_adapter(connection, asked)
    job = await store.find_job(connection, adapter.job_id if adapter else asked)
    # Another domain's adapter reads like none: a domain is the tenancy boundary.
    if job is None or job.domain != request.domain:
        raise fault(f"the id of an adapter of domain {request.domain!r}, or of the job that trained it here")
    if job.completed is None:
        raise fault(f"a job that has succeeded; this one is {job.state}")
    made = job.completed
    if made.base_model != base:
        raise fault(
            f"an adapter of {base.name} at revision {base.revision[:12]}, which this trainer trains; this one is of "
            f"{made.base_model.name} at {made.base_model.revision[:12]}"
        )
    trained = json.loads(made.configuration)
    return Continuation(
        continued_from=asked,
        job_id=job.job_id,
        weights=made.checkpoint,
        config=made.checkpoint_config,
        method=made.method,
        rank=int(trained["rank"]),
        alpha=float(trained["alpha"]),
        target_modules=tuple(trained["target_modules"]),
        layers=trained.get("layers"),
    )
