"""Which samples a job trains on, frozen into an immutable data set in the object store."""

import asyncio
import time
from datetime import UTC, datetime

import structlog

from fleet_events import v1
from fleet_events.topology import STREAM, consumers_of, durable_name
from fleet_kit.db import Connection
from services.trainer.configuration import Fault, InvalidRequest
from services.trainer.data import store
from services.trainer.data.dataset import Sample, StoredDataset, freeze
from services.trainer.service import TrainerService

log = structlog.get_logger()

_DRAIN_SECONDS = 30.0


async def freeze_selection(request: v1.TrainingRequested, service: TrainerService) -> StoredDataset:
    """The data set of a request: the named one, or the samples its query selects now.

    Raises:
        InvalidRequest: the named data set is not there, or nothing matches.
    """
    if request.dataset_id:
        async with service.db.acquire(timeout=5) as connection:
            return await named_dataset(connection, request)
    await _samples_settled(service)
    async with service.db.acquire(timeout=5) as connection, connection.transaction(readonly=True):
        selected = [
            sample
            async for sample in store.select_samples(connection, request.domain, request.query, request.min_rating)
        ]
        recorded = await store.count_samples(connection, request.domain)
    if not selected:
        raise InvalidRequest((_nothing(request, recorded),))
    return await _store(request, selected, service)


async def named_dataset(connection: Connection, request: v1.TrainingRequested) -> StoredDataset:
    """The data set that a request names; raises `InvalidRequest` unless the request's domain owns it."""
    stored = await store.find_dataset(connection, request.dataset_id)
    if stored is None or stored.domain != request.domain:
        raise InvalidRequest(
            (Fault("dataset_id", request.dataset_id, f"the id of a data set of domain {request.domain!r}"),)
        )
    return stored


async def _store(request: v1.TrainingRequested, selected: list[Sample], service: TrainerService) -> StoredDataset:
    frozen = freeze(request.domain, selected)
    blob = await service.blobs.put("datasets", frozen.body, content_type="application/x-ndjson")
    dataset = v1.Dataset(dataset_id=frozen.dataset_id, blob=blob, samples=frozen.samples)
    stored = StoredDataset(dataset, request.domain, request.query, request.min_rating, datetime.now(UTC))
    async with service.db.acquire(timeout=5) as connection:
        await store.add_dataset(connection, stored)
    return stored


async def _samples_settled(service: TrainerService) -> None:
    """Wait until the samples that were published before this moment are recorded.

    Who publishes samples and then a request may expect to train on them, but order holds only within a consumer.
    A sample that cannot be recorded at present delays the job, and does not block it.
    """
    durable = next(durable_name(one, row) for row, one in consumers_of(service.name) if row.event is v1.SampleRecorded)
    newest = (await service.jetstream.stream_info(STREAM)).state.last_seq
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        info = await service.jetstream.consumer_info(STREAM, durable)
        done = info.ack_floor.stream_seq if info.ack_floor else 0
        if done >= newest or not (info.num_pending or info.num_ack_pending):
            return
        await asyncio.sleep(0.2)
    log.warning("samples are still being recorded; training on those that are there", durable=durable)


def _nothing(request: v1.TrainingRequested, recorded: int) -> Fault:
    if not recorded:
        return Fault("domain", request.domain, "a domain with recorded samples (POST /v1/samples, or SampleRecorded)")
    floor = f" rated at least {request.min_rating:g}" if request.min_rating is not None else ""
    return Fault("query", request.query, f"words that occur in the {recorded} samples of {request.domain!r}{floor}")
