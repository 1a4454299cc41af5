"""HTTP in: what callers took of the fleet's answers, by month."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query

from services.registry.access import Reader
from services.registry.parts import ThisService
from services.registry.store import usage_by_month
from services.registry.store.usage_by_month import MonthlyUsage
from services.registry.view import View

router = APIRouter()


class UsageLine(View):
    """What one caller took of one domain's adapters; domain '' is the base model without an adapter."""

    domain: str
    caller: str
    answers: int
    prompt_tokens: int
    completion_tokens: int


class UsageReport(View):
    """A month, as 2026-12 (UTC), most tokens first."""

    month: str
    usage: list[UsageLine]

    @classmethod
    def of(cls, month: date, found: Sequence[MonthlyUsage]) -> Self:
        return cls(month=f"{month:%Y-%m}", usage=[UsageLine.model_validate(one) for one in found])


@router.get("/usage", summary="Answers and tokens of a month by domain and caller")
async def get_usage(
    caller: Reader,
    service: ThisService,
    month: Annotated[str, Query(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="As 2026-12; empty: this month.")] = "",
    domain: str | None = None,
) -> UsageReport:
    """Of the domains that the caller reaches, and the caller's own of the base model."""
    if domain is not None:
        caller.reach(domain)
    first = date.fromisoformat(f"{month or datetime.now(UTC).strftime('%Y-%m')}-01")
    async with service.db.acquire(timeout=5) as connection:
        found = await usage_by_month.of_month(connection, first, domain, caller.domain_filter, caller.subject)
    return UsageReport.of(first, found)
