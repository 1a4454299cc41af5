"""Order between consumers: within one the bus keeps it, between two one has to wait."""

import asyncio
import time

import structlog

from fleet_events.message import Event
from fleet_events.topology import consumers_of, durable_name
from services.trainer.datasets.context import DatasetContext

log = structlog.get_logger()

_DRAIN_SECONDS = 30.0


async def settled(event: type[Event], service: DatasetContext) -> None:
    """Wait until the events of one kind that were published before this moment are handled.

    Who publishes samples and then a request may expect to train on them, and who publishes a golden data set that
    nothing of it is trained on. An event that cannot be handled at present delays the work, and does not block it.
    """
    row, consumer = next((row, one) for row, one in consumers_of(service.name) if row.event is event)
    durable, stream = durable_name(consumer, row), row.stream.name
    newest = (await service.jetstream.stream_info(stream)).state.last_seq
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        info = await service.jetstream.consumer_info(stream, durable)
        done = info.ack_floor.stream_seq if info.ack_floor else 0
        if done >= newest or not (info.num_pending or info.num_ack_pending):
            return
        await asyncio.sleep(0.2)
    log.warning("events_still_being_consumed", durable=durable)
