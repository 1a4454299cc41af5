"""The router's endpoints."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter

from lorafleet.calls.paths import path_segment
from lorafleet.clients import Call
from lorafleet.responses import Anything, Route, RouteAnswer, RouteCorrection

_ANYTHING = TypeAdapter(Anything)


def route(query: str, k: int, threshold: float | None, domains: Sequence[str]) -> Call[RouteAnswer]:
    """What the router would do with a query."""
    body: dict[str, object] = {"query": query, "k": k}
    if threshold is not None:
        body["threshold"] = threshold
    if domains:
        body["domains"] = list(domains)
    return Call("router", "POST", "/v1/route", TypeAdapter(RouteAnswer), body=body)


def routes() -> Call[list[Route]]:
    """Adapters that queries are routed to."""
    return Call("router", "GET", "/v1/routes", TypeAdapter(list[Route]), inside="routes")


def correct_route(query: str, domain: str, family: str | None) -> Call[Anything]:
    """Record which family of a domain is to answer a query; None: no family."""
    body: dict[str, object] = {"query": query, "domain": domain, "family": family}
    return Call("router", "POST", "/v1/corrections", _ANYTHING, body=body)


def route_corrections(domain: str | None, limit: int) -> Call[list[RouteCorrection]]:
    """Corrections that count, newest first."""
    query = {"limit": limit, "domain": domain}
    return Call("router", "GET", "/v1/corrections", TypeAdapter(list[RouteCorrection]), query, inside="corrections")


def forget_correction(domain: str, correction_id: str) -> Call[Anything]:
    """Take a correction back."""
    path = f"/v1/corrections/{path_segment(domain)}/{path_segment(correction_id)}"
    return Call("router", "DELETE", path, _ANYTHING)
