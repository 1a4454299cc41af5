"""Tickets of waiting jobs that the bus has lost: in a dead letter, or with a stream that was restored or made again."""

import structlog

from fleet_events import v1
from fleet_events.topology import consumers_of, durable_name
from services.trainer.jobs import domain, job_queue
from services.trainer.runs.context import RunContext

log = structlog.get_logger()


async def replace(service: RunContext) -> int:
    """Queue as many tickets as open jobs have too few; returns how many.

    Tickets are interchangeable, so counting them is enough. The bus is counted last: a ticket that is published between
    the counts is then in both, so that the relay's work is never taken for a loss. Jobs that end meanwhile may bring a
    few tickets too many, which are spare; one too few is found by the next sweep.
    """
    async with service.db.acquire(timeout=5) as connection:
        open_jobs, unpublished = await job_queue.count_open(connection)
    row, consumer = next((row, one) for row, one in consumers_of(service.name) if row.event is v1.TrainingQueued)
    info = await service.jetstream.consumer_info(row.stream.name, durable_name(consumer, row))
    on_the_bus = (info.num_pending or 0) + (info.num_ack_pending or 0)
    missing = open_jobs - unpublished - on_the_bus
    if missing <= 0:
        return 0
    async with service.transaction() as tx:
        jobs = await job_queue.oldest_waiting(tx.connection, missing)
        for job in jobs:
            await tx.emit(domain.queued(job), entity=job.job_id)
    if jobs:
        log.warning("tickets_replaced", tickets=len(jobs), open_jobs=open_jobs)
    return len(jobs)
