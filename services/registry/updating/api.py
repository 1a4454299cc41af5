"""HTTP in: updates of what runs."""

from __future__ import annotations

from typing import Self

from fastapi import APIRouter
from pydantic import Field

from services.registry.access import Reader
from services.registry.family import Family
from services.registry.parts import ThisService
from services.registry.repository import read
from services.registry.store import updates, versions
from services.registry.store.updates import Installed
from services.registry.updating.update import Update, best_update
from services.registry.view import View

router = APIRouter()


class UpdateView(View):
    """A version that runs, and the best one available for it; `available` is empty where nothing higher is approved."""

    family: str
    domain: str
    running: str
    active: bool = Field(description="Whether it answers for its family")
    held_by: tuple[str, ...] = Field(description="Replicas that loaded it and have not given it up")
    available: str = ""
    recommended: bool = False
    why: str = ""
    difference: float | None = Field(default=None, description="Score points, paired on the same samples")
    ci_low: float | None = None
    ci_high: float | None = None
    samples: int | None = None
    improvement: float | None = Field(default=None, description="Per cent of what the running version scores")

    @classmethod
    def of(cls, family: Family, one: Installed, update: Update | None) -> Self:
        running = family.find(one.adapter_id)
        compared = update.comparison if update else None
        return cls(
            family=family.family_id,
            domain=family.domain,
            running=one.adapter_id,
            active=running is not None and running.active,
            held_by=one.held_by,
            available=update.available.adapter_id if update else "",
            recommended=update is not None and update.recommended,
            why=update.why if update else "no higher version is approved",
            difference=compared.difference if compared else None,
            ci_low=compared.ci_low if compared else None,
            ci_high=compared.ci_high if compared else None,
            samples=compared.samples if compared else None,
            improvement=update.improvement if update else None,
        )


class UpdateList(View):
    """Everything that runs, with its update."""

    updates: list[UpdateView]


@router.get("/updates", summary="What runs where, and what is available and recommended for it")
async def list_updates(caller: Reader, service: ThisService, domain: str | None = None) -> UpdateList:
    if domain is not None:
        caller.reach(domain)
    found = []
    async with service.db.acquire(timeout=5) as connection:
        for one in await updates.installed(connection, domain, caller.domain_filter):
            family = await read(connection, one.family_id)
            running = family.find(one.adapter_id)
            if running is None:
                continue
            policy = await versions.find_policy(connection, family.domain)
            served = await updates.served_before(connection, family.family_id)
            update = best_update(family, running, served, policy.update_minimum_improvement)
            found.append(UpdateView.of(family, one, update))
    return UpdateList(updates=found)
