"""What the collections of all services share: request, ownership of the objects, refusals over HTTP, repetition."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from collections.abc import Collection as Kinds
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import structlog
from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field

from fleet_kit.auth import Caller, require
from fleet_kit.blobs import Blobs
from fleet_kit.db import Pool
from fleet_kit.errors import Problem
from fleet_kit.faults import describe
from fleet_kit.object_owner import adopt, own
from fleet_kit.object_sweep import Bound, Marks, SweepRefused, SweptKind, sweep

__all__ = [
    "Adoption",
    "Collection",
    "FleetAdmin",
    "adopted",
    "collect_objects",
    "keep_collecting",
    "refusals_as_problems",
    "require_owned",
]

log = structlog.get_logger()

FleetAdmin = Annotated[Caller, Depends(require("fleet:admin"))]


class Collection(BaseModel):
    """How to collect garbage."""

    model_config = ConfigDict(extra="forbid")

    apply: bool = Field(default=False, description="False lists what would go and changes nothing")
    at_most: int = Field(default=0, ge=0, description="Objects that may be deleted though they are unusually many")


class Adoption(BaseModel):
    """Whose objects they are from now on."""

    database_id: str
    generation: int


async def adopted(db: Pool, blobs: Blobs) -> Adoption:
    """Make the objects this database's own, see `object_owner.adopt`."""
    marker = await adopt(db, blobs)
    return Adoption(database_id=marker.database_id, generation=marker.generation)


async def keep_collecting(every_hours: float, collect: Callable[[], Awaitable[object]]) -> None:
    """Collect again and again, until cancelled; never where `every_hours` is 0. Replicas may do so side by side."""
    while every_hours:
        await asyncio.sleep(every_hours * 3600)
        try:
            await collect()
        except Exception as error:
            log.warning("garbage_not_collected", reason=describe(error))


async def require_owned(service: str, db: Pool, blobs: Blobs, kinds: Kinds[str]) -> None:
    """Raises SweepRefused where the objects of a service are another database's, see `object_owner`."""
    if why := await _not_owned(service, db, blobs, kinds):
        raise SweepRefused(why)


async def collect_objects(
    service: str,
    db: Pool,
    blobs: Blobs,
    kinds: Kinds[str],
    marks: Marks,
    *,
    grace: timedelta,
    apply: bool,
    bound: Bound,
) -> tuple[list[SweptKind], str]:
    """Sweep the service's own objects; what was found, and where nothing is applied why it would be refused.

    Raises:
        SweepRefused: they are another database's, or too many would go.
    """
    if apply:
        await require_owned(service, db, blobs, kinds)
    found = await sweep(blobs, kinds, marks, grace=grace, apply=apply, bound=bound)
    refused = "" if apply else await _not_owned(service, db, blobs, kinds) or bound.refusal(found)
    return found, refused


@contextmanager
def refusals_as_problems() -> Iterator[None]:
    """Turn SweepRefused into the answer to an HTTP request."""
    try:
        yield
    except SweepRefused as error:
        raise Problem(409, "Collection refused", str(error)) from error


async def _not_owned(service: str, db: Pool, blobs: Blobs, kinds: Kinds[str]) -> str:
    why = await own(db, blobs, kinds)
    if not why:
        return ""
    return (
        f"{service}: {why}. Restore the newest backup; or, if this database is the right one, "
        f"lorafleet gc --adopt {service} makes the objects its own (POST /v1/gc/adoption)"
    )
