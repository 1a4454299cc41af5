"""HTTP in: migrations to other base models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_events.text import Text
from fleet_kit.auth import Caller, require
from fleet_kit.errors import Problem
from services.registry.access import Reader, visible
from services.registry.base_models import BaseModelUnavailable, WrongBaseModel
from services.registry.checkpoint import CannotServe
from services.registry.migrating.start import Order, start
from services.registry.migrating.strategy import Strategy, choose
from services.registry.parts import ThisService
from services.registry.store import migrations, versions
from services.registry.transition import Act, NotAllowed
from services.registry.view import View

router = APIRouter(prefix="/migrations")

Migrator = Annotated[Caller, Depends(require("adapters:write", "train"))]


class MigrationBody(BaseModel):
    """A version that is to be had for another base model."""

    model_config = ConfigDict(extra="forbid")

    adapter_id: Text = Field(max_length=200)
    to_base_model: Text = Field(max_length=200, description="Name of the base model; its revision that is pinned here")
    strategy: Strategy | None = Field(
        default=None, description="null: the domain's rule for these two, else automatic, which retrains"
    )
    reason: Text = Field(default="", max_length=2000)


class MigrationView(View):
    """A version on its way to another base model. `state`: training, registered or failed."""

    migration_id: str
    adapter_id: str
    domain: str
    strategy: str
    from_base_model: str
    from_revision: str
    to_base_model: str
    to_revision: str
    state: str
    job_id: str | None = Field(description="The training, where it is one")
    new_adapter_id: str | None = Field(description="The version that it has become; it is judged like any other")
    error: str
    reason: str
    requested_by: str
    requested_at: datetime
    ended_at: datetime | None


class MigrationList(View):
    """Migrations, newest first."""

    migrations: list[MigrationView]


@router.post("", status_code=202, summary="Carry a version over to another base model, or revision of its own")
async def begin_migration(
    body: MigrationBody, caller: Migrator, service: ThisService, response: Response
) -> MigrationView:
    async with service.db.acquire(timeout=5) as connection:
        adapter = await visible(connection, body.adapter_id, caller)
        policy = await versions.find_policy(connection, adapter.submission.domain)
    act = Act(caller.subject, datetime.now(UTC), body.reason or f"migration to {body.to_base_model}")
    try:
        target = await service.parts.base_models.get(body.to_base_model)
        strategy = choose(body.strategy, policy.migration_strategies, adapter, target.reference)
        migration = await start(service, Order(adapter, target, strategy, act))
    except WrongBaseModel as error:
        raise Problem(422, "Invalid request", str(error), field="to_base_model") from error
    except BaseModelUnavailable as error:
        raise Problem(503, "Base model unavailable", str(error), field="to_base_model") from error
    except CannotServe as error:
        detail = f"{adapter.adapter_id} cannot be converted: {error}; retrain it"
        raise Problem(409, "Cannot be converted", detail, field=error.field) from error
    except NotAllowed as error:
        raise Problem(409, "Not allowed", str(error), field=error.field) from error
    if migration is None:
        raise RuntimeError(f"the migration of {adapter.adapter_id} was not begun")
    response.headers["Location"] = f"/v1/migrations/{migration.migration_id}"
    return MigrationView.model_validate(migration)


@router.get("", summary="Migrations to other base models, newest first")
async def list_migrations(
    caller: Reader,
    service: ThisService,
    domain: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> MigrationList:
    if domain is not None:
        caller.reach(domain)
    async with service.db.acquire(timeout=5) as connection:
        found = await migrations.migrations(connection, domain, caller.domain_filter, limit)
    return MigrationList(migrations=[MigrationView.model_validate(one) for one in found])


@router.get("/{migration_id}", summary="One migration")
async def get_migration(migration_id: str, caller: Reader, service: ThisService) -> MigrationView:
    async with service.db.acquire(timeout=5) as connection:
        found = await migrations.find_migration(connection, migration_id)
    if found is None or not caller.reaches(found.domain):
        detail = f"no migration {migration_id[:80]!r} in the domains of this token; GET /v1/migrations lists them"
        raise Problem(404, "Unknown migration", detail, field="migration_id")
    return MigrationView.model_validate(found)
