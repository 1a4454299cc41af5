"""HTTP in: requests to forget a person, and how far they are. Scope `admin`, for the token's domains."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from fleet_events.text import Text
from fleet_events.v1 import ErasureQueued
from fleet_kit.auth import Caller, require
from fleet_kit.caller import EVERY_DOMAIN, is_domain
from fleet_kit.cloudevents import event_id
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.trainer.datasets.store import subjects as subject_store
from services.trainer.datasets.subjects import digest_of
from services.trainer.http_access import Limit
from services.trainer.runs.context import RunContext
from services.trainer.runs.erasure import learned_store, store
from services.trainer.runs.erasure.elsewhere import described, kept_elsewhere
from services.trainer.runs.erasure.store import Erasure
from services.trainer.runs.garbage_api import Runs
from services.trainer.schemas import View

router = APIRouter(prefix="/v1/erasures", tags=["erasure"])

Admin = Annotated[Caller, Depends(require("admin"))]


class ForgetRequest(BaseModel):
    """Whom to forget, and what becomes of the adapters that learned from them."""

    model_config = ConfigDict(extra="forbid")

    subject: Text = Field(min_length=1, max_length=512, description="The person, as records named them; it is not kept")
    domain: str = Field(default=EVERY_DOMAIN, description="A domain, or * for all of them")
    reason: Text = Field(default="", max_length=2000)
    adapters: Literal["list", "retire", "replace"] = Field(
        default="list",
        description="Of the versions that learned from the person's records: retire rejects them at once; replace has "
        "the domain's retraining rules train without the records, and rejects them once such a version serves",
    )
    awaits: tuple[Literal["evaluator", "inference"], ...] = Field(
        default=(), description="Services that the caller tells the name itself: it is not erased before they have"
    )


class ServiceView(View):
    """How far one service is: requested, erasing or erased."""

    service: str
    state: str
    deleted: int
    changed_at: datetime


class ErasureView(View):
    """A request, and once it is erased its proof: it names nobody and holds no text."""

    erasure_id: str
    domain: str
    subject_digest: str = Field(description="HMAC-SHA-256 of the name, under a key that never leaves the trainer")
    requested_by: str
    reason: str
    retire: bool
    replace: bool
    state: str
    requested_at: datetime
    erased_at: datetime | None
    datasets: tuple[str, ...] = Field(description="Data sets that held records of the person: their files are deleted")
    adapters: tuple[str, ...] = Field(description="Versions that learned from them")
    deleted: dict[str, dict[str, object]] = Field(description="Kind → count and SHA-256 over the sorted ids")
    late: int = Field(description="Records that arrived after the request, and were refused")
    kept_elsewhere: list[str] = Field(
        description="Places that recipes read and that are their owners': they stay, no data set is built of the person"
    )
    services: list[ServiceView]

    @classmethod
    async def of(cls, one: Erasure, connection: Connection, trainer: RunContext) -> "ErasureView":
        services = await store.services_of(connection, one.erasure_id)
        return cls(
            erasure_id=one.erasure_id,
            domain=one.domain,
            subject_digest=one.subject,
            requested_by=one.requested_by,
            reason=one.reason,
            retire=one.retire,
            replace=one.replace,
            state=one.state,
            requested_at=one.requested_at,
            erased_at=one.erased_at,
            datasets=one.datasets,
            adapters=one.adapters,
            deleted=one.deleted,
            late=one.late,
            kept_elsewhere=described(await kept_elsewhere(connection, one.domain, trainer.blobs)),
            services=[
                ServiceView(service=each.service, state=each.state, deleted=each.deleted, changed_at=each.changed_at)
                for each in services
            ],
        )


@router.post("", status_code=202, summary="Forget a person: erase every record about them, everywhere")
async def forget(body: ForgetRequest, caller: Admin, trainer: Runs) -> ErasureView:
    """From the answer on no record about the person is taken. The same request again is the same erasure."""
    if body.domain != EVERY_DOMAIN and not is_domain(body.domain):
        raise Problem(422, "Invalid request", f"domain is {body.domain!r}, expected a domain or *", field="domain")
    if body.domain == EVERY_DOMAIN and caller.domain_filter is not None:
        raise Problem(403, "Domain not allowed", "this token reaches some domains only: name one", field="domain")
    caller.reach(body.domain)
    async with trainer.transaction() as tx:
        if body.adapters == "replace" and not await learned_store.is_retrained(tx.connection, body.domain):
            detail = "adapters is replace, but no retraining rules train without the records; set some, or use retire"
            raise Problem(409, "Nothing is retrained", detail, field="adapters")
        subject = digest_of(await subject_store.subject_key(tx.connection), body.subject)
        await subject_store.lock_forgetting(tx.connection)
        asked = store.Erasure(
            erasure_id=event_id(),
            domain=body.domain,
            subject=subject,
            requested_by=caller.subject,
            reason=body.reason,
            retire=body.adapters == "retire",
            replace=body.adapters == "replace",
            state="requested",
            requested_at=datetime.now(UTC),
        )
        if await store.add_erasure(tx.connection, asked):
            await store.set_service(tx.connection, asked.erasure_id, trainer.name, "requested")
        known = await store.erasure_of(tx.connection, subject, body.domain)
        if known is None:
            raise LookupError("an erasure that was added is not in the database")
        for other in body.awaits:
            await store.set_service(tx.connection, known.erasure_id, other, "requested")
        if known.state != "erased":  # again: a ticket may have been lost
            queued = ErasureQueued(erasure_id=known.erasure_id, domain=known.domain)
            await tx.emit(queued, entity=known.erasure_id)
        return await ErasureView.of(known, tx.connection, trainer)


@router.get("", summary="Requests to forget people, newest first")
async def list_erasures(caller: Admin, trainer: Runs, limit: Limit = 100) -> dict[str, list[ErasureView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await store.list_erasures(connection, caller.domain_filter, limit)
        views = [await ErasureView.of(one, connection, trainer) for one in found]
    return {"erasures": views}


@router.get("/{erasure_id}", summary="How far a request is, and its proof")
async def get_erasure(erasure_id: str, caller: Admin, trainer: Runs) -> ErasureView:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await store.find_erasure(connection, erasure_id)
        if found is None or not caller.reaches(found.domain):
            raise Problem(404, "Erasure not found", f"no erasure {erasure_id!r} in the domains of this token")
        return await ErasureView.of(found, connection, trainer)
