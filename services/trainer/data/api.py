"""HTTP in: samples and data sets. Scope `train`; a caller sees only the domains of its token."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request

from fleet_kit.errors import Problem
from services.trainer.access import Limit, Trains, domains_of
from services.trainer.data import dataset_store, store
from services.trainer.data.intake import DOMAIN, read_samples
from services.trainer.data.views import DatasetView, SamplesView
from services.trainer.service import Trainer

router = APIRouter(prefix="/v1", tags=["data"])

_BATCH = 500


@router.post("/samples", status_code=201, summary="Record samples, one JSON object a line")
async def record_samples(
    request: Request, caller: Trains, trainer: Trainer, domain: Annotated[str | None, Query(pattern=DOMAIN)] = None
) -> SamplesView:
    """All lines are recorded or none. `?domain=` is the domain of lines that name none."""
    received, added, now = 0, 0, datetime.now(UTC)
    reached: set[str] = set()
    async with trainer.transaction() as tx:
        async for batch in read_samples(request.stream(), domain, size=_BATCH):
            for name in {sample.domain for sample in batch} - reached:
                caller.reach(name)
                reached.add(name)
            added += await store.add_samples(tx.connection, batch, now)
            received += len(batch)
    return SamplesView(received=received, added=added, duplicates=received - added)


@router.get("/datasets", summary="Frozen data sets, newest first")
async def list_datasets(caller: Trains, trainer: Trainer, limit: Limit = 100) -> dict[str, list[DatasetView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await dataset_store.list_versions(connection, domains_of(caller), None, limit)
    return {"datasets": [DatasetView.of(one) for one in found]}


@router.get("/datasets/{dataset_id}", summary="A frozen data set")
async def get_dataset(dataset_id: str, caller: Trains, trainer: Trainer) -> DatasetView:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await dataset_store.find_dataset(connection, dataset_id)
    if found is None or not caller.reaches(found.domain):
        raise Problem(404, "Data set not found", f"no data set {dataset_id!r} that this token reaches")
    return DatasetView.of(found)
