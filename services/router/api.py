"""HTTP of the router."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from fleet_kit.auth import Caller, require
from fleet_kit.errors import Problem
from fleet_kit.http import service_of
from lora_core.query_windows import query_windows

from . import store
from .parts import RouterService
from .rebuild import rebuild

router = APIRouter()

EVERY_DOMAIN = "*"
MAX_QUERY = 20_000
"""Characters; of longer texts the beginning and the end are compared anyway, see `lora_core.query_windows`."""
MAX_TURNS = 16


def _service(request: Request) -> RouterService:
    service: RouterService = service_of(request)
    return service


ThisService = Annotated[RouterService, Depends(_service)]
Generates = Annotated[Caller, Depends(require("generate"))]
Reads = Annotated[Caller, Depends(require("adapters:read"))]
Administers = Annotated[Caller, Depends(require("fleet:admin"))]


class RouteRequest(BaseModel, extra="forbid"):
    """A query, and how near an adapter has to be."""

    query: str = Field(min_length=1, max_length=MAX_QUERY)
    """What is asked; of a conversation, the last turn."""
    earlier: list[Annotated[str, Field(max_length=MAX_QUERY)]] = Field(default_factory=list, max_length=MAX_TURNS)
    """The user's turns before it, oldest first: the last ones count too, each less than the one after it."""
    k: int = Field(default=1, ge=1, le=50)
    threshold: float | None = Field(default=None, ge=-1.0, le=1.0)
    """Smallest cosine similarity; the service's setting where it is not given."""
    domains: list[str] | None = Field(default=None, max_length=1000)
    """Narrows the caller's own domains."""


class Match(BaseModel):
    """An adapter that the query is near to."""

    adapter_id: str
    family: str
    domain: str
    score: float
    """Cosine similarity with the nearest of the adapter's texts, less where it is not of the query's end."""


class RouteResponse(BaseModel):
    """Matches at or above the threshold, best first; none is an answer too."""

    matches: list[Match]
    threshold: float


class Route(BaseModel):
    """An adapter that queries are routed to."""

    adapter_id: str
    family: str
    domain: str
    version: str
    description: str
    revision: int
    texts: int
    """How many texts it is recognised by; none means that no query ever reaches it."""


class Routes(BaseModel):
    """The live index."""

    routes: list[Route]


class Rebuilt(BaseModel):
    """How many adapters are routed to after a rebuild."""

    routes: int


@router.post("/v1/route")
async def route(body: RouteRequest, caller: Generates, service: ThisService) -> RouteResponse:
    """The adapters nearest to a query, among the domains that the caller reaches."""
    threshold = service.settings.route_threshold if body.threshold is None else body.threshold
    domains = _within(caller, body.domains)
    embedder = service.parts.embedder
    windows = query_windows(body.query, body.earlier)
    if not windows:
        return RouteResponse(matches=[], threshold=threshold)
    vectors = await embedder.embed([one.text for one in windows])
    async with service.db.acquire() as connection:
        matches = await store.best_matches(
            connection,
            vectors,
            [one.weight for one in windows],
            embedded_by=embedder.identity,
            domains=domains,
            threshold=threshold,
            k=body.k,
        )
    return RouteResponse(
        matches=[Match(adapter_id=m.adapter_id, family=m.family, domain=m.domain, score=m.score) for m in matches],
        threshold=threshold,
    )


@router.get("/v1/routes")
async def routes(caller: Reads, service: ThisService) -> Routes:
    """Adapters in the index, of the domains that the caller reaches."""
    async with service.db.acquire() as connection:
        found = await store.live_routes(connection, _within(caller, None))
    return Routes(
        routes=[
            Route(
                adapter_id=one.adapter_id,
                family=one.family,
                domain=one.domain,
                version=one.version,
                description=one.description,
                revision=one.revision,
                texts=one.texts,
            )
            for one in found
        ]
    )


@router.post("/admin/rebuild")
async def rebuild_index(_caller: Administers, service: ThisService) -> Rebuilt:
    """Rebuilds the index of all domains from the stream."""
    return Rebuilt(routes=await rebuild(service))


def _within(caller: Caller, asked: list[str] | None) -> list[str] | None:
    """Domains to search; None is every domain. Raises 403 for an asked domain beyond the caller's token."""
    if asked is None:
        return caller.domain_filter
    if EVERY_DOMAIN in asked:
        raise Problem(422, "Not a domain", "domains takes names; leave it out for all you reach", field="domains")
    for one in asked:
        caller.reach(one)
    return asked
