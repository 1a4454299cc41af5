"""HTTP in: recipes and what they are built from. Scope `train`; a caller sees only the domains of its token."""

import asyncio
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from fleet_events import v1
from fleet_events.v1 import DomainName
from fleet_kit.cloudevents import event_id
from fleet_kit.errors import Problem
from fleet_kit.http_limits import body_rule
from services.trainer.datasets import build_service, quotas
from services.trainer.datasets.build_fault import CannotBuild
from services.trainer.datasets.build_state import DatasetBuild
from services.trainer.datasets.context import DatasetContext, Datasets
from services.trainer.datasets.dataset import Format, StoredUpload
from services.trainer.datasets.presets import PRESETS
from services.trainer.datasets.recipe import DataRecipe
from services.trainer.datasets.schemas import BuildQueued, BuildView, UploadView
from services.trainer.datasets.store import builds as build_store
from services.trainer.datasets.store import samples as store
from services.trainer.datasets.worker.rows import format_of
from services.trainer.http_access import Limit, Trains
from services.trainer.work_folder import work_folder

router = APIRouter(prefix="/v1", tags=["data"])


@router.put(
    "/uploads",
    status_code=201,
    summary="Upload a JSONL, CSV or Parquet file for recipes",
    openapi_extra=body_rule("source_bytes", "application/octet-stream"),
)
async def upload(
    request: Request,
    caller: Trains,
    trainer: Datasets,
    domain: DomainName,
    filename: Annotated[str, Query(min_length=1, max_length=200)],
) -> UploadView:
    """The body is the file itself; its name's extension is its format. The same bytes again are the same upload."""
    caller.reach(domain)
    name = PurePosixPath(filename.replace("\\", "/")).name
    fmt = format_of(name)
    if fmt is None:
        detail = f"filename: {filename!r}, expected one that ends in .jsonl, .ndjson, .csv or .parquet"
        raise Problem(422, "Invalid upload", detail, field="filename")
    async with trainer.transaction() as tx:
        await quotas.check_upload(tx.connection, domain, 1, trainer.settings)
    brought = await _keep(request, domain, name, fmt, trainer)
    try:
        async with trainer.transaction() as tx:
            if await store.find_upload(tx.connection, domain, brought.blob.sha256) is None:
                await quotas.check_upload(tx.connection, domain, brought.blob.bytes, trainer.settings)
            kept = await store.add_upload(tx.connection, brought)
    except Problem:
        await trainer.blobs.delete(brought.blob)
        raise
    if kept.blob.uri != brought.blob.uri:
        await trainer.blobs.delete(brought.blob)
    return UploadView.of(kept)


@router.get("/uploads", summary="Uploaded files, newest first")
async def list_uploads(caller: Trains, trainer: Datasets, limit: Limit = 100) -> dict[str, list[UploadView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await store.list_uploads(connection, caller.domain_filter, limit)
    return {"uploads": [UploadView.of(one) for one in found]}


@router.delete("/uploads/{upload_id}", summary="Delete an uploaded file")
async def delete_upload(upload_id: str, caller: Trains, trainer: Datasets, domain: DomainName) -> UploadView:
    """Data sets that were built from it stay: they hold records of their own. A build that still waits for it fails."""
    caller.reach(domain)
    async with trainer.transaction() as tx:
        removed = await store.remove_upload(tx.connection, domain, upload_id)
        if removed is None:
            raise Problem(404, "Upload not found", f"no upload {upload_id!r} in domain {domain!r}")
        # Before the commit: a store that cannot be reached leaves the upload listed, to be deleted again.
        await trainer.blobs.delete(removed.blob)
    return UploadView.of(removed)


@router.post("/datasets", status_code=202, summary="Build a data set from a recipe")
async def build_dataset(recipe: DataRecipe, response: Response, caller: Trains, trainer: Datasets) -> BuildQueued:
    """Whichever worker takes it builds it; `GET /v1/datasets/builds/{id}` gives its state."""
    caller.reach(recipe.domain)
    try:
        build_service.check(recipe, trainer)
    except CannotBuild as refused:
        faults = [fault.model_dump() for fault in refused.faults]
        raise Problem(422, "Cannot build", str(refused), field=refused.faults[0].field, faults=faults) from refused
    build = DatasetBuild(event_id(), recipe, caller.subject, tuple(sorted(caller.domains)), datetime.now(UTC))
    async with trainer.transaction() as tx:
        await quotas.check_build(tx.connection, recipe.domain, trainer.settings)
        await build_store.add_build(tx.connection, build)
        await tx.emit(v1.DatasetQueued(build_id=build.build_id, domain=recipe.domain), entity=build.build_id)
    response.headers["Location"] = f"/v1/datasets/builds/{build.build_id}"
    return BuildQueued(build_id=build.build_id)


@router.get("/datasets/builds", summary="Builds, newest first")
async def list_builds(caller: Trains, trainer: Datasets, limit: Limit = 100) -> dict[str, list[BuildView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await build_store.list_builds(connection, caller.domain_filter, limit)
    return {"builds": [BuildView.of(one) for one in found]}


@router.get("/datasets/builds/{build_id}", summary="State of a build")
async def get_build(build_id: str, caller: Trains, trainer: Datasets) -> BuildView:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await build_store.find_build(connection, build_id)
    if found is None or not caller.reaches(found.recipe.domain):
        raise Problem(
            404,
            "Build not found",
            f"unknown build {build_id!r} in the domains of this token; see GET /v1/datasets/builds",
        )
    return BuildView.of(found)


@router.get("/datasets/presets", summary="How data is prepared for each type of adapter")
async def list_presets(caller: Trains) -> dict[str, dict[str, object]]:  # noqa: ARG001 - the scope is required
    return {name: dict(preset) for name, preset in PRESETS.items()}


async def _keep(request: Request, domain: str, name: str, fmt: Format, trainer: DatasetContext) -> StoredUpload:
    """The body in the object store, by way of a file: it is stored under its digest, which is known at its end."""
    with work_folder(trainer.settings.cache_dir) as folder:
        path, received = folder / "upload", 0
        with path.open("wb") as file:
            async for chunk in request.stream():
                received += len(chunk)
                await asyncio.to_thread(file.write, chunk)
        if not received:
            raise Problem(422, "Invalid upload", "the body is empty, expected a file")
        # Each its own object: one that is put again while it is deleted is not the object that goes.
        blob = await trainer.blobs.put(f"uploads/{domain}/{event_id()}", path)
    return StoredUpload(domain, name, fmt, blob, datetime.now(UTC))
