"""HTTP for operators: what adapters, disk cache and memory are doing, and how to change it.

Scope `admin` lists, preloads and evicts adapters of the token's own domains; others do not exist for it. What
concerns all domains at once (drain, workflows, disk cache, memory, replicas) needs `fleet:admin`.
"""

from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from fleet_kit import memory
from fleet_kit.auth import Caller, require
from services.inference.errors import NotFound
from services.inference.http import listings
from services.inference.http.access import Parts
from services.inference.http.parameters import Body
from services.inference.parts import InferenceParts
from services.inference.policies.preloading import active_of
from services.inference.slots.adapters import View
from services.inference.slots.allocation import Priority
from services.inference.slots.states import Loaded

router = APIRouter(prefix="/admin")
fleet = APIRouter(prefix="/admin", dependencies=[Depends(require("fleet:admin"))])
Administers = Annotated[Caller, Depends(require("admin"))]

Names = Annotated[list[Annotated[str, Field(max_length=300)]], Field(min_length=1, max_length=1000)]


class PreloadRequest(Body):
    """POST /admin/preload: a configured workflow, or adapter ids and families."""

    workflow: str = Field(default="", max_length=512)
    models: Names | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if bool(self.workflow) == (self.models is not None):
            raise ValueError("give either workflow or models")
        return self


class EvictRequest(Body):
    """POST /admin/evict: adapter ids and families, or all that have been idle for so long; not those in use."""

    models: Names | None = None
    idle_seconds: float = Field(default=0.0, ge=0)


class DrainRequest(Body):
    """POST /admin/drain: whether to take no new requests."""

    draining: bool = True


@router.get("/adapters")
async def adapters(caller: Administers, parts: Parts) -> JSONResponse:
    """Every adapter of the caller's domains that this process has touched, its state and how it is used."""
    views = {view.adapter.adapter_id: _shown(view) for view in _views(caller, parts)}
    loads = [one.backend.load for one in parts.hosting.all]
    return JSONResponse(
        {
            "adapters": dict(sorted(views.items())),
            "slots": {one.base.name: one.adapters.slots for one in parts.hosting.all},
            "rows_running": sum(running for running, _ in loads),
            "requests_waiting": sum(waiting for _, waiting in loads),
        }
    )


@fleet.get("/cache")
async def cache(parts: Parts) -> JSONResponse:
    """The artifacts on disk, most recently used first."""
    files = await parts.cache.contents()
    return JSONResponse(
        {
            "folder": str(parts.cache.folder),
            "bytes": sum(one.bytes for one in files),
            "limit": parts.cache.limit,
            "files": [{"name": one.name, "bytes": one.bytes, "last_used": _time(one.last_used)} for one in files],
        }
    )


@fleet.get("/pressure")
async def memory_pressure(parts: Parts) -> JSONResponse:
    """The level of memory pressure and what it was read from."""
    readings = sorted(parts.watch.readings, key=lambda one: one.share, reverse=True)
    return JSONResponse(
        {
            "level": parts.watch.level.name.lower(),
            "readings": [
                {"source": one.source, "used": one.used, "limit": one.limit, "share": round(one.share, 4)}
                for one in readings
            ],
            "resident": memory.resident(),
        }
    )


@router.post("/preload", status_code=202)
async def preload(body: PreloadRequest, caller: Administers, parts: Parts) -> JSONResponse:
    """Bring adapters into slots; idle ones leave for them. `missing`: names without an active adapter."""
    catalogue = parts.projection.catalogue
    if body.models is None:
        caller.hold("fleet:admin")  # workflows are the fleet's, their adapters may be of any domain
        found, missing = parts.preloading.of_workflow(body.workflow, catalogue)
    else:
        found, missing = active_of(body.models, catalogue, caller.reaches)
        if missing:
            raise _unknown(missing, "is neither the id nor the family of an active adapter")
    return JSONResponse({"preloading": parts.preloading.bring(found), "missing": missing}, status_code=202)


@router.post("/evict")
async def evict(body: EvictRequest, caller: Administers, parts: Parts) -> JSONResponse:
    """Take adapters out of their slots. `kept`: those named that stay, and why."""
    views = _views(caller, parts)
    if body.models is not None:
        known = {name for view in views for name in (view.adapter.adapter_id, view.adapter.family)}
        if unknown := [name for name in body.models if name not in known]:
            raise _unknown(unknown, "is not among the adapters of this process (GET /admin/adapters)")
        views = [view for view in views if {view.adapter.adapter_id, view.adapter.family} & set(body.models)]
    only = frozenset(view.adapter.adapter_id for view in views)
    evicted: set[str] = set()
    for one in parts.hosting.all:
        evicted.update(await one.adapters.evict("evicted by hand", idle_for=body.idle_seconds, only=only))
    kept = {view.adapter.adapter_id: _why_kept(view) for view in views if view.adapter.adapter_id not in evicted}
    return JSONResponse({"evicted": sorted(evicted), "kept": kept if body.models else {}})


@fleet.get("/replicas")
async def replicas(parts: Parts) -> JSONResponse:
    """This replica and the others that it sees; `own` is null where it stands alone (no `replica_url`)."""
    seen = parts.forwarding.announcements
    own = seen.own.model_dump(mode="json") if seen else None
    return JSONResponse({"own": own, "others": [one.model_dump(mode="json") for one in seen.others] if seen else []})


@fleet.post("/drain")
async def drain(body: DrainRequest, parts: Parts) -> JSONResponse:
    """Take no new requests, so that the process can be stopped once `rows_running` is 0; or take them again."""
    parts.gate.draining = body.draining
    loads = [one.backend.load for one in parts.hosting.all]
    running, waiting = sum(running for running, _ in loads), sum(waiting for _, waiting in loads)
    return JSONResponse({"draining": body.draining, "rows_running": running, "requests_waiting": waiting})


def _views(caller: Caller, parts: InferenceParts) -> list[View]:
    return [view for one in parts.hosting.all for view in one.adapters.views if caller.reaches(view.adapter.domain)]


def _shown(view: View) -> dict[str, object]:
    return listings.state(view.state) | {
        "domain": view.adapter.domain,
        "artifact_sha256": view.adapter.artifact.blob.sha256,
        "uses": view.usage.uses,
        "loads": view.usage.loads,
        "last_used": _time(view.usage.last_used) if view.usage.last_used else None,
        "waiting": view.waiting,
        "pinned": view.wanted is Priority.PINNED,
        "wanted_as": view.wanted.name.lower() if view.wanted is not None else None,
    }


def _why_kept(view: View) -> str:
    if view.wanted is Priority.PINNED:
        return "pinned"
    if isinstance(view.state, Loaded):
        return "in use" if view.state.users else "used lately"
    return type(view.state).__name__.lower()


def _unknown(names: list[str], fault: str) -> NotFound:
    return NotFound(f"{', '.join(map(repr, names))} {fault}.", code="model_not_found", param="models")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
