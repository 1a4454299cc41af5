"""SQL of data sets that are built again after an erasure: one statement a function, connection first."""

from collections.abc import Sequence

from fleet_kit.db import Connection
from services.trainer.datasets.build_state import DatasetBuild
from services.trainer.datasets.store.builds import build_of


async def find_learned(
    connection: Connection, family: str, active: str, erasures: Sequence[str]
) -> tuple[DatasetBuild, int] | None:
    """The build of the data set that a version was trained on, and its number of records.

    The version is the active one or, where none is (""), the family's newest that learned from the erased records. None
    where it was not trained on a recipe's data set.
    """
    row = await connection.fetchrow(
        """
        with version as (
            select jobs.domain, jobs.request->>'datasetId' as dataset_id
            from adapters join jobs using (job_id)
            where adapters.registered->'adapter'->>'family' = $1 and ($2 = '' or adapters.adapter_id = $2)
              and exists (
                  select from erasures where erasure_id = any($3) and adapters.adapter_id = any(erasures.adapters)
              )
            order by jobs.created_at desc limit 1
        )
        select build.*, datasets.samples from dataset_builds build
        join version using (domain, dataset_id) join datasets using (dataset_id)
        where build.state = 'succeeded' order by build.finished_at desc limit 1
        """,
        family,
        active,
        erasures,
    )
    return (build_of(row), int(row["samples"])) if row else None


async def find_since(connection: Connection, domain: str, name: str, erasures: Sequence[str]) -> DatasetBuild | None:
    """The newest build of a name that was requested after all these erasures."""
    row = await connection.fetchrow(
        """
        select * from dataset_builds where domain = $1 and recipe->>'name' = $2
          and created_at > (select max(requested_at) from erasures where erasure_id = any($3))
        order by created_at desc limit 1
        """,
        domain,
        name,
        erasures,
    )
    return build_of(row) if row else None
