"""HTTP of corrections: what people teach, list and take back."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from fleet_kit.auth import Caller, require
from fleet_kit.errors import Problem
from fleet_kit.http import dependency
from services.router import correction_store, index
from services.router.correction_store import Correction, Kept
from services.router.parts import RouterService

corrections = APIRouter(prefix="/v1/corrections")

MAX_QUERY = 20_000
"""Characters; of longer texts the beginning and the end are compared anyway, see `lora_core.query_windows`."""
MOST_LISTED = 1_000

ThisService = Annotated[RouterService, Depends(dependency(RouterService))]
Teaches = Annotated[Caller, Depends(require("adapters:write"))]


class CorrectionRequest(BaseModel, extra="forbid"):
    """A query of a domain and who is to answer it."""

    query: str = Field(min_length=1, max_length=MAX_QUERY)
    domain: str
    family: str | None
    """null: no adapter of the domain."""


class Taught(BaseModel):
    """What was understood."""

    domain: str
    family: str | None


class KeptCorrection(BaseModel):
    """A correction that counts."""

    correction_id: str
    """SHA-256 of the query, in hexadecimal."""
    domain: str
    query: str
    family: str | None
    """null: no adapter of the domain."""
    taught_by: str
    taught_at: datetime


class Corrections(BaseModel):
    """Newest first."""

    corrections: list[KeptCorrection]


class TakenBack(BaseModel):
    """What no longer counts."""

    domain: str
    correction_id: str


@corrections.post("")
async def teach(body: CorrectionRequest, caller: Teaches, service: ThisService) -> Taught:
    """Teach which adapter is to answer a query and those like it. The last correction of a query counts."""
    caller.reach(body.domain)
    parts = service.parts
    live = [one.route for one in await parts.answering.index.routes() if one.route.domain == body.domain]
    if body.family is not None and body.family not in {one.family for one in live}:
        known = ", ".join(one.family for one in live) or "none"
        raise Problem(404, "No such family", f"live families of {body.domain!r} are: {known}", field="family")
    correction = Correction(body.domain, body.query.strip(), body.family, caller.subject)
    if not correction.query:
        raise Problem(422, "Not a query", "query is blank; give the text that was routed wrongly", field="query")
    async with service.transaction() as tx:
        await index.teach(tx.connection, parts.embedders, correction)
    return Taught(domain=body.domain, family=body.family)


@corrections.get("")
async def taught(
    caller: Teaches,
    service: ThisService,
    domain: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
) -> Corrections:
    """The corrections of a domain, or of all that the caller reaches, with their texts."""
    if domain is not None:
        caller.reach(domain)
    domains = caller.domain_filter if domain is None else [domain]
    async with service.db.acquire(timeout=5) as connection:
        kept = await correction_store.newest_corrections(connection, domains, limit)
    return Corrections(corrections=[_shown(one) for one in kept])


def _shown(one: Kept) -> KeptCorrection:
    of = one.correction
    return KeptCorrection(
        correction_id=of.key.hex(),
        domain=of.domain,
        query=of.query,
        family=of.family,
        taught_by=of.taught_by,
        taught_at=one.taught_at,
    )


@corrections.delete("/{domain}/{correction_id}")
async def take_back(
    domain: str, correction_id: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], caller: Teaches, service: ThisService
) -> TakenBack:
    """Take a correction back: from now on its query is routed as those that were never corrected."""
    caller.reach(domain)
    async with service.transaction() as tx:
        if not await correction_store.delete_correction(tx.connection, domain, bytes.fromhex(correction_id)):
            detail = f"no correction of {domain!r} has the id {correction_id}"
            raise Problem(404, "No such correction", detail, field="correction_id")
        await correction_store.notify_taught(tx.connection, domain)
    return TakenBack(domain=domain, correction_id=correction_id)
