"""HTTP in: golden data sets."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from fleet_kit.errors import Problem
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with
from services.evaluator.access import Reader, Running, Writer, visible_golden
from services.evaluator.code_tests.code_tests import first_fault
from services.evaluator.domain import BadVersion
from services.evaluator.golden import publication as golden_publication
from services.evaluator.golden import samples as golden
from services.evaluator.golden import sets as golden_sets
from services.evaluator.golden import store as golden_store
from services.evaluator.golden.erasure import admitted
from services.evaluator.golden.samples import BadLines, GoldenSample
from services.evaluator.golden.schemas import Changed, DatasetDetail, Datasets, DatasetVersion, NewDataset

router = APIRouter(prefix="/v1/golden", tags=["golden data sets"])

MAX_BODY = 32 * 1024 * 1024
SHOWN_ERRORS = 100


@router.post(
    "",
    status_code=201,
    summary="Create a golden data set, or a further version of one (empty)",
    responses={200: {"model": DatasetVersion, "description": "It was there already"}},
)
async def create(wanted: NewDataset, caller: Writer, service: Running, response: Response) -> DatasetVersion:
    caller.reach(wanted.domain)
    try:
        async with service.transaction() as tx:
            made, new = await golden_sets.create(
                tx.connection,
                dataset_id=wanted.dataset_id,
                domain=wanted.domain,
                version=wanted.version,
                description=wanted.description,
                context_use=wanted.context_use,
                by=caller.subject,
            )
    except BadVersion as error:
        raise Problem(422, "Invalid request", str(error), field="version") from error
    except golden_sets.Conflict as error:
        raise Problem(409, "Golden data set conflict", str(error), field=str(error).partition(":")[0]) from error
    response.status_code = 201 if new else 200
    return DatasetVersion.model_validate(made)


@router.get("", summary="Newest version of every data set, of one domain or of all that the caller reaches")
async def list_datasets(caller: Reader, service: Running, domain: str | None = None) -> Datasets:
    if domain is not None:
        caller.reach(domain)
    reached = caller.domain_filter
    async with service.db.acquire() as connection:
        found = await golden_store.newest_of_each(connection, domain=domain, domains=reached)
    return Datasets(datasets=[DatasetVersion.model_validate(version) for version in found])


@router.get("/{dataset_id}", summary="One data set: its newest version, or the one named")
async def show(dataset_id: str, caller: Reader, service: Running, version: str | None = None) -> DatasetDetail:
    async with service.db.acquire() as connection:
        found = await visible_golden(connection, dataset_id, version, caller)
        versions = await golden_store.versions(connection, dataset_id)
        samples = await golden_store.samples(connection, dataset_id, found.version)
    counts = {name: sum(s.difficulty == name for s in samples) for name in ("easy", "medium", "hard")}
    shown = DatasetVersion.model_validate(found)
    return DatasetDetail(**shown.model_dump(), versions=[v.version for v in versions], by_difficulty=counts)


@router.post(
    "/{dataset_id}/samples",
    summary="Import samples, one JSON object a line (application/x-ndjson)",
    openapi_extra=body_rule(MAX_BODY, "application/x-ndjson"),
)
async def import_samples(
    dataset_id: str,
    request: Request,
    caller: Writer,
    service: Running,
    replace: Annotated[bool, Query(description="the lines are all samples, instead of further ones")] = False,
) -> Changed:
    async with service.db.acquire() as connection:
        domain = (await visible_golden(connection, dataset_id, None, caller)).domain
    text = await _text(request)
    samples = await _read(text, domain)
    if fault := await first_fault(service.parts.tests, samples):
        raise Problem(422, "Invalid samples", f"nothing was imported: {fault}", field="tests")
    async with service.transaction() as tx:
        taken = await admitted(tx.connection, samples, domain)
        change = await golden_sets.set_samples(tx.connection, dataset_id, taken, replace=replace, by=caller.subject)
        if change.changed:
            await golden_publication.publish(tx, change.version)
    shown_version = DatasetVersion.model_validate(change.version).model_dump()
    return Changed(
        **shown_version,
        changed=change.changed,
        opened=change.opened,
        read=len(samples),
        forgotten=len(samples) - len(taken),
    )


_READING = asyncio.Semaphore(2)
"""Imports that are checked at once in this process: each takes a thread, for a minute at worst."""


async def _read(text: str, domain: str) -> list[GoldenSample]:
    try:
        async with _READING:
            return await asyncio.to_thread(golden.read_jsonl, text, domain)
    except BadLines as error:
        shown = [{"line": e.line, "field": e.field, "detail": e.detail} for e in error.errors[:SHOWN_ERRORS]]
        raise Problem(
            422,
            "Invalid samples",
            f"nothing was imported: {error}",
            field=error.errors[0].field,
            errors=shown,
            error_count=len(error.errors),
        ) from error


@router.get(
    "/{dataset_id}/export",
    summary="The samples as JSONL, as import takes them",
    response_class=Response,
    responses=answers_with("application/x-ndjson"),
)
async def export(dataset_id: str, caller: Reader, service: Running, version: str | None = None) -> PlainTextResponse:
    async with service.db.acquire() as connection:
        found = await visible_golden(connection, dataset_id, version, caller)
        if found.let_go_at is not None:
            raise Problem(410, "Golden samples let go", golden_sets.let_go(found), field="version")
        samples = await golden_store.samples(connection, dataset_id, found.version)
    name = f"{dataset_id}-{found.version}.jsonl"
    return PlainTextResponse(
        golden.write_jsonl(samples),
        media_type="application/x-ndjson",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Golden-Version": found.version,
            "X-Golden-Sha256": golden.digest(samples, found.context_use),
        },
    )


async def _text(request: Request) -> str:
    body = await request.body()
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        raise Problem(422, "Invalid samples", f"line {line} is not UTF-8", field="(line)") from error
