"""What the router answers."""

from __future__ import annotations

from pydantic import Field

from lorafleet.responses.reply import Reply


class Match(Reply):
    """An adapter that the router would choose."""

    adapter_id: str
    family: str = ""
    domain: str = ""
    score: float
    threshold: float | None = None
    evidence: str = ""
    calibrated_on: int = 0


class RouteAnswer(Reply):
    """What the router would do with a query, and why."""

    outcome: str = ""
    matches: list[Match] = Field(default_factory=list)
    nearest: Match | None = None
    margin: float | None = None
    why: str = ""


class Route(Reply):
    """An adapter that queries are routed to."""

    adapter_id: str
    family: str
    domain: str
    evidence: str | None = None
    vectors: int = 0
    threshold: float | None = None
    calibrated_on: int = 0


class RouteCorrection(Reply):
    """A query whose route somebody corrected."""

    correction_id: str
    domain: str
    query: str
    family: str | None = None
    taught_by: str = ""
    generation_id: str | None = None
    taught_at: str = ""
