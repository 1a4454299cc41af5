"""HTTP of the router."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from fleet_kit.auth import Caller, require
from fleet_kit.errors import Problem
from fleet_kit.http import dependency
from lora_core.query_windows import query_windows
from services.router.corrections_api import MAX_QUERY, corrections
from services.router.decision import Decision, Outcome, decide
from services.router.decision import weights as decision_weights
from services.router.evidence import Kind
from services.router.live import Found, Listed
from services.router.parts import RouterService
from services.router.rebuild import rebuild

router = APIRouter()
router.include_router(corrections)

EVERY_DOMAIN = "*"
MAX_TURNS = 16


ThisService = Annotated[RouterService, Depends(dependency(RouterService))]
Generates = Annotated[Caller, Depends(require("generate"))]
Reads = Annotated[Caller, Depends(require("adapters:read"))]
Administers = Annotated[Caller, Depends(require("fleet:admin"))]


class RouteRequest(BaseModel, extra="forbid"):
    """A query, and how near an adapter has to be."""

    query: str = Field(min_length=1, max_length=MAX_QUERY)
    """The query; of a conversation, the last turn."""
    earlier: list[Annotated[str, Field(max_length=MAX_QUERY)]] = Field(default_factory=list, max_length=MAX_TURNS)
    """The user's turns before it, oldest first: the last ones count too, each less than the one after it."""
    k: int = Field(default=1, ge=1, le=50)
    threshold: float | None = Field(default=None, ge=-1.0, le=1.0)
    """Smallest cosine similarity for every adapter, in place of each one's own."""
    margin: float | None = Field(default=None, ge=0.0, le=2.0)
    """Adapters that close to the best one are ambiguous; the service's setting where it is not given."""
    domains: list[str] | None = Field(default=None, max_length=1000)
    """Narrows the caller's own domains."""


class Match(BaseModel):
    """An adapter and how near the query is to it."""

    adapter_id: str
    family: str
    domain: str
    score: float
    """Cosine similarity with the nearest of the adapter's vectors, less where it is not of the query's end."""
    threshold: float
    """From which similarity on it is a match."""
    weight: float | None = None
    """Its share among the matches, together 1; null for an adapter that is not a match."""
    evidence: Kind
    """What it is recognised by: centroids of all its training prompts, a few examples, or its description."""
    calibrated_on: int
    """Prompts of its own that the threshold comes from; 0 where it is the setting's: then the answer is less sure."""
    share_not_nearer: float | None
    """Which part of its own prompts comes no nearer than this query; null where that is not known."""


class RouteResponse(BaseModel):
    """What to do with the query. `abstain` is an answer too."""

    outcome: Outcome
    matches: list[Match]
    """At or above their thresholds, best first, at most `k`."""
    nearest: Match | None
    """The best match, or what came nearest where there is none."""
    threshold: float
    """Of the nearest one."""
    margin: float | None
    """How far the nearest one is before the second; null where there is no second."""
    why: str


class Route(BaseModel):
    """An adapter that queries are routed to."""

    adapter_id: str
    family: str
    domain: str
    version: str
    description: str
    revision: int
    texts: int
    """How many texts came with it."""
    evidence: Kind | None
    """What it is recognised by; null means that no query ever reaches it."""
    vectors: int
    threshold: float | None
    calibrated_on: int


class Routes(BaseModel):
    """The live index, and the embedding model that it is of."""

    routes: list[Route]
    embedding_model: str


class Rebuilt(BaseModel):
    """How many adapters are routed to after a rebuild."""

    routes: int


@router.post("/v1/route")
async def route(body: RouteRequest, caller: Generates, service: ThisService) -> RouteResponse:
    """The adapters nearest to a query, among the domains that the caller reaches."""
    settings, model = service.settings, service.parts.answering
    domains = _within(caller, body.domains)
    windows = query_windows(body.query, body.earlier)
    found: list[Found] = []
    if windows:
        vectors = await model.embedder.embed([one.text for one in windows])
        weights = np.array([one.weight for one in windows], dtype=np.float32)
        found = await model.index.find(vectors, weights, None if domains is None else set(domains), body.threshold)
    margin = settings.ambiguous_margin if body.margin is None else body.margin
    return _response(decide([one.candidate for one in found], margin), found, body.k, settings.route_threshold)


def _response(decision: Decision, found: list[Found], k: int, threshold: float) -> RouteResponse:
    of = {one.candidate.family: one for one in found}
    shares = decision_weights(decision.matches)
    nearest = decision.nearest
    return RouteResponse(
        outcome=decision.outcome,
        matches=[_match(of[one.family], share) for one, share in zip(decision.matches[:k], shares[:k], strict=True)],
        nearest=None if nearest is None else _match(of[nearest.family], shares[0] if shares else None),
        threshold=threshold if nearest is None else nearest.threshold,
        margin=decision.margin,
        why=decision.why,
    )


def _match(one: Found, weight: float | None) -> Match:
    return Match(
        adapter_id=one.route.adapter_id,
        family=one.route.family,
        domain=one.route.domain,
        score=one.candidate.score,
        threshold=one.candidate.threshold,
        weight=weight,
        evidence=one.evidence,
        calibrated_on=one.calibrated_on,
        share_not_nearer=one.share_not_nearer,
    )


@router.get("/v1/routes")
async def routes(caller: Reads, service: ThisService) -> Routes:
    """Adapters in the index, of the domains that the caller reaches."""
    model = service.parts.answering
    shown = [_route(one) for one in await model.index.routes() if caller.reaches(one.route.domain)]
    return Routes(routes=shown, embedding_model=model.embedder.identity)


def _route(listed: Listed) -> Route:
    one, known, threshold = listed.route, listed.known, listed.threshold
    return Route(
        adapter_id=one.adapter_id,
        family=one.family,
        domain=one.domain,
        version=one.version,
        description=one.description,
        revision=one.revision,
        texts=one.texts,
        evidence=known and known.kind,
        vectors=0 if known is None else known.vectors,
        threshold=threshold and threshold.value,
        calibrated_on=0 if threshold is None else threshold.calibrated_on,
    )


@router.post("/admin/rebuild")
async def rebuild_index(_caller: Administers, service: ThisService) -> Rebuilt:
    """Rebuilds the index of all domains from the stream."""
    return Rebuilt(routes=await rebuild(service))


def _within(caller: Caller, requested: list[str] | None) -> list[str] | None:
    """Domains to search; None is every domain. Raises 403 for a requested domain beyond the caller's token."""
    if requested is None:
        return caller.domain_filter
    if EVERY_DOMAIN in requested:
        raise Problem(422, "Not a domain", "domains takes names; leave it out for all you reach", field="domains")
    for one in requested:
        caller.reach(one)
    return requested
