"""SQL of builds: one statement a function, connection first."""

from collections.abc import Sequence

import asyncpg

from fleet_kit.db import Connection
from services.trainer.datasets.build_fault import BuildFault
from services.trainer.datasets.build_state import BuildState, DatasetBuild
from services.trainer.datasets.recipe import DataRecipe


async def add_build(connection: Connection, build: DatasetBuild) -> None:
    """Queue a build."""
    await connection.execute(
        """
        insert into dataset_builds (build_id, domain, recipe, requested_by, requested_domains, state, created_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        build.build_id,
        build.recipe.domain,
        build.recipe.model_dump(mode="json"),
        build.requested_by,
        build.requested_domains,
        build.state,
        build.created_at,
    )


async def find_build(connection: Connection, build_id: str) -> DatasetBuild | None:
    """A build by its id."""
    row = await connection.fetchrow("select * from dataset_builds where build_id = $1", build_id)
    return build_of(row) if row else None


async def list_builds(connection: Connection, domains: Sequence[str] | None, limit: int) -> list[DatasetBuild]:
    """The newest builds of these domains (None: of all)."""
    rows = await connection.fetch(
        "select * from dataset_builds where $1::text[] is null or domain = any($1) order by created_at desc limit $2",
        domains,
        limit,
    )
    return [build_of(row) for row in rows]


async def save_build(connection: Connection, build: DatasetBuild) -> None:
    """Write back a build that this transaction has locked."""
    await connection.execute(
        """
        update dataset_builds
        set state = $2, attempts = $3, dataset_id = $4, version = $5, faults = $6, finished_at = $7
        where build_id = $1
        """,
        build.build_id,
        build.state,
        build.attempts,
        build.dataset_id,
        build.version,
        [fault.model_dump(mode="json") for fault in build.faults],
        build.finished_at,
    )


def build_of(row: asyncpg.Record) -> DatasetBuild:
    """The build of a row of dataset_builds."""
    return DatasetBuild(
        build_id=row["build_id"],
        recipe=DataRecipe.model_validate(row["recipe"]),
        requested_by=row["requested_by"],
        requested_domains=tuple(row["requested_domains"]),
        created_at=row["created_at"],
        state=BuildState(row["state"]),
        attempts=row["attempts"],
        dataset_id=row["dataset_id"],
        version=row["version"],
        faults=tuple(BuildFault.model_validate(one) for one in row["faults"]),
        finished_at=row["finished_at"],
    )
