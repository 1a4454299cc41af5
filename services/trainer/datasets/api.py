"""HTTP in: samples and data sets. Scope `train`; a caller sees only the domains of its token."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from fleet_events.v1 import DomainName
from fleet_kit.auth import Caller
from fleet_kit.db import Connection
from fleet_kit.errors import BlobCorrupt, BlobMissing, Problem
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with
from services.trainer.datasets.context import DatasetContext, Datasets
from services.trainer.datasets.dataset import Sample, StoredDataset
from services.trainer.datasets.filters.report import FilterCount
from services.trainer.datasets.recipe import NAME
from services.trainer.datasets.record_export import part_of, read_lines
from services.trainer.datasets.records import Split
from services.trainer.datasets.sample_upload import read_samples
from services.trainer.datasets.schemas import DatasetView, SamplesView
from services.trainer.datasets.store import samples as store
from services.trainer.datasets.store import versions as dataset_store
from services.trainer.datasets.store.subjects import Recorded
from services.trainer.datasets.subjects import admit
from services.trainer.datasets.worker.card import DataCard
from services.trainer.http_access import Limit, Trains
from services.trainer.work_folder import work_folder

router = APIRouter(prefix="/v1", tags=["data"])

_BATCH = 500
_CHUNK = 1 << 16


@router.post(
    "/samples",
    status_code=201,
    summary="Record samples, one JSON object a line",
    openapi_extra=body_rule("samples_bytes", "application/x-ndjson"),
)
async def record_samples(
    request: Request, caller: Trains, trainer: Datasets, domain: DomainName | None = None
) -> SamplesView:
    """All lines are recorded or none. `?domain=` is the domain of lines that name none."""
    received, added, forgotten, now = 0, 0, 0, datetime.now(UTC)
    reached: set[str] = set()
    with work_folder(trainer.settings.cache_dir) as folder:
        # By way of a file: a transaction that waited for the client would hold its connection as long as that likes.
        path = await _spool(request, folder / "samples")
        async with trainer.transaction() as tx:
            async for batch in read_samples(_chunks(path), domain, size=_BATCH):
                for name in {sample.domain for sample in batch} - reached:
                    caller.reach(name)
                    reached.add(name)
                kept = [one for one in batch if await _admitted(tx.connection, one)]
                added += await store.add_samples(tx.connection, kept, now)
                received += len(batch)
                forgotten += len(batch) - len(kept)
    duplicates = received - forgotten - added
    return SamplesView(received=received, added=added, duplicates=duplicates, forgotten=forgotten)


async def _admitted(connection: Connection, sample: Sample) -> bool:
    recorded = Recorded(sample.domain, "sample", sample.sample_id)
    return await admit(connection, sample.subject, recorded) is None


async def _spool(request: Request, path: Path) -> Path:
    with path.open("wb") as file:
        async for chunk in request.stream():
            await asyncio.to_thread(file.write, chunk)
    return path


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


@router.get("/datasets", summary="Versions of data sets, newest first")
async def list_datasets(
    caller: Trains,
    trainer: Datasets,
    name: Annotated[str | None, Query(pattern=NAME)] = None,
    limit: Limit = 100,
) -> dict[str, list[DatasetView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await dataset_store.list_versions(connection, caller.domain_filter, name, limit)
    return {"datasets": [DatasetView.of(one) for one in found]}


@router.get("/datasets/{dataset_id}", summary="A data set by its id, as its newest version")
async def get_dataset(dataset_id: str, caller: Trains, trainer: Datasets) -> DatasetView:
    return DatasetView.of(await _dataset(dataset_id, caller, trainer))


@router.get("/datasets/{dataset_id}/card", summary="A data set's card: sources, filters, counts, split")
async def get_card(dataset_id: str, caller: Trains, trainer: Datasets) -> Response:
    """The card as it is stored: its bytes have the digest that the data set names."""
    return Response(await _card(dataset_id, caller, trainer), media_type="application/json")


@router.get("/datasets/{dataset_id}/dropped", summary="Samples of what each filter dropped, and why")
async def get_dropped(
    dataset_id: str, caller: Trains, trainer: Datasets, filter: str | None = None
) -> dict[str, dict[str, FilterCount]]:
    """Each filter that ran, or the one that is named; `generated` is what they dropped of generated records."""
    card = DataCard.model_validate_json(await _card(dataset_id, caller, trainer))
    reports = {"filters": card.filtered.filters, "generated": card.generated_filtered.filters}
    return {
        part: {name: count for name, count in counts.items() if filter in (None, name)}
        for part, counts in reports.items()
    }


@router.get(
    "/datasets/{dataset_id}/records",
    summary="The records, one JSON object a line",
    response_class=Response,
    responses=answers_with("application/x-ndjson"),
)
async def get_records(
    *,
    dataset_id: str,
    caller: Trains,
    trainer: Datasets,
    split: Split | None = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int | None, Query(ge=1, le=1000, description="All of them without it")] = None,
) -> StreamingResponse:
    """In the order of their ids; of one side of the split or of both, all or a part."""
    stored = await _dataset(dataset_id, caller, trainer)
    if stored.removed_at is not None:
        raise Problem(410, "Data set removed", f"removed at {stored.removed_at.isoformat()}: {stored.removed_because}")
    lines = part_of(read_lines(stored, split, trainer), offset, limit)
    try:
        await anext(lines)
    except (BlobMissing, BlobCorrupt) as error:
        raise Problem(503, "Data set not readable", str(error)) from error
    return StreamingResponse(lines, media_type="application/x-ndjson")


async def _dataset(dataset_id: str, caller: Caller, trainer: DatasetContext) -> StoredDataset:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await dataset_store.find_dataset(connection, dataset_id)
    if found is None or not caller.reaches(found.domain):
        raise Problem(
            404,
            "Data set not found",
            f"unknown data set {dataset_id!r} in the domains of this token; see GET /v1/datasets",
        )
    return found


async def _card(dataset_id: str, caller: Caller, trainer: DatasetContext) -> bytes:
    stored = await _dataset(dataset_id, caller, trainer)
    card = stored.dataset.card
    if card is None:
        raise Problem(404, "No card", f"data set {dataset_id!r} has no card")
    try:
        return await trainer.blobs.get(card)
    except BlobMissing as error:
        if stored.removed_at is None:
            raise
        raise Problem(410, "Card removed", f"removed at {stored.removed_at}: {stored.removed_because}") from error
