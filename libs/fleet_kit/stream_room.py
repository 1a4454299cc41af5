"""How full streams are and how far consumers lag, as metrics; before nothing fits any more, warnings in the log."""

import asyncio
from typing import NoReturn

import nats.errors
import structlog
from nats.js import JetStreamContext

from fleet_events.topology import DEAD_STREAM, STREAMS, consumers_of, durable_name
from fleet_kit import dead_letters, metrics
from fleet_kit.faults import describe

__all__ = ["NEARLY_FULL", "lag", "look", "watch_room"]

log = structlog.get_logger()

LOOK_EVERY = 15.0
"""Seconds."""
NEARLY_FULL = 0.8
"""Share of a stream's room from which on each look warns."""


async def watch_room(jetstream: JetStreamContext, service: str) -> NoReturn:
    """Look regularly until cancelled, also at the lag of the service's own durables.

    While the bus is unavailable the metrics keep their last values.
    """
    while True:
        try:
            await look(jetstream)
            await lag(jetstream, service)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            log.info("stream_room_unknown", reason=describe(error))
        await asyncio.sleep(LOOK_EVERY)


async def look(jetstream: JetStreamContext) -> dict[str, float]:
    """The share of its room that each stream has used; raises what a JetStream request raises."""
    filled: dict[str, float] = {}
    for name in (*(stream.name for stream in STREAMS), DEAD_STREAM):
        info = await jetstream.stream_info(name)
        room = info.config.max_bytes or 0
        filled[name] = info.state.bytes / room if room > 0 else 0.0
        metrics.STREAM_FILL.labels(name).set(filled[name])
        if name == DEAD_STREAM:
            metrics.DEAD_LETTERS.set(await dead_letters.count(jetstream))
        if filled[name] >= NEARLY_FULL:
            log.warning("stream_nearly_full", stream=name, filled=round(filled[name], 3), max_bytes=room)
    return filled


async def lag(jetstream: JetStreamContext, service: str) -> dict[str, int]:
    """Messages that each durable of a service has not acknowledged yet; raises what a JetStream request raises."""
    waiting: dict[str, int] = {}
    for row, consumer in consumers_of(service):
        durable = durable_name(consumer, row)
        info = await jetstream.consumer_info(row.stream.name, durable)
        waiting[durable] = (info.num_pending or 0) + (info.num_ack_pending or 0)
        metrics.CONSUMER_LAG.labels(durable).set(waiting[durable])
    return waiting
