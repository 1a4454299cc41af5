"""Tickets of waiting jobs that the bus has lost: in a dead letter, or with a stream that was restored or made again."""

import structlog

from fleet_events import v1
from fleet_events.topology import consumers_of, durable_name
from services.trainer.jobs import domain, job_queue
from services.trainer.runs.context import RunContext

log = structlog.get_logger()


async def replace(service: RunContext) -> int:
    """Queue as many tickets as open jobs have too few; returns how many.

    Tickets are interchangeable, so counting them is enough. While jobs and tickets come and go the counts may be one
    or two apart: a ticket too many is spare, and one too few is found by the next sweep.
    """
    row, consumer = next((row, one) for row, one in consumers_of(service.name) if row.event is v1.TrainingQueued)
    info = await service.jetstream.consumer_info(row.stream.name, durable_name(consumer, row))
    on_the_bus = (info.num_pending or 0) + (info.num_ack_pending or 0)
    async with service.transaction() as tx:
        open_jobs, unpublished = await job_queue.count_open(tx.connection)
        missing = open_jobs - unpublished - on_the_bus
        jobs = await job_queue.oldest_waiting(tx.connection, missing) if missing > 0 else []
        for job in jobs:
            await tx.emit(domain.queued(job), entity=job.job_id)
    if jobs:
        log.warning("tickets_replaced", tickets=len(jobs), open_jobs=open_jobs)
    return len(jobs)
