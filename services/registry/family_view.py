"""A family as the registry answers it over HTTP."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from services.registry.view import View


class FamilyView(View):
    """A family and its active version; what that has is null, or 0, where none is active."""

    family: str
    domain: str
    method: str
    versions: int
    pending_review: int
    active_id: str | None
    active_version: str | None
    score: float | None = Field(description="Of the active version, 0 to 100, with its interval")
    ci_low: float | None
    ci_high: float | None
    answers: int
    ratings: int
    average_rating: float | None
    replicas: int = Field(description="Replicas that hold the active version")
    newest_id: str
    newest_at: datetime


class FamilyList(View):
    """A page of families. `total` is the number of all that were searched for; 0 behind the last page."""

    families: list[FamilyView]
    total: int
