"""SQL of what a collection reads and writes: one statement a function, connection first."""

from dataclasses import dataclass
from datetime import timedelta

from fleet_kit.db import Connection


@dataclass(frozen=True)
class RemovableDataset:
    """A data set that its domain's rule lets go."""

    dataset_id: str
    bytes: int


async def add_release(connection: Connection, job_id: str, adapter_id: str) -> None:
    """Keep that the registry has released what a job made."""
    await connection.execute(
        "insert into releases (job_id, adapter_id) values ($1, $2) on conflict do nothing", job_id, adapter_id
    )


async def marked_objects(connection: Connection, grace: timedelta) -> frozenset[str]:
    """URIs of everything that something still needs.

    A job needs its files until its version is released, and for the grace time after that; so does what it
    continued, and what that continued. A job that has not ended needs what it continues, and its data set.
    """
    rows = await connection.fetch(
        """
        with recursive needed as (
            select jobs.job_id from jobs left join releases using (job_id)
            where jobs.state in ('queued', 'running', 'paused')
               or jobs.completed is not null
                  and (releases.job_id is null or releases.released_at > now() - $1::interval)
            union
            select jobs.continued->>'job_id' from needed join jobs using (job_id) where jobs.continued is not null
        )
        select jsonb_path_query(completed, '$.**.uri') #>> '{}' as uri from jobs join needed using (job_id)
        union
        select jsonb_path_query(continued, '$.**.uri') #>> '{}' from jobs join needed using (job_id)
        union
        select datasets.uri from jobs join needed using (job_id)
            join datasets on datasets.dataset_id in (jobs.dataset_id, jobs.request->>'datasetId')
        union
        select jsonb_path_query(registered, '$.**.uri') #>> '{}' from adapters
            left join releases using (adapter_id)
            where releases.job_id is null or releases.released_at > now() - $1::interval
        union
        select uri from datasets where removed_at is null or removed_at > now() - $1::interval
        union
        select card_uri from dataset_versions
        union
        select uri from uploads
        union
        select uri from checkpoints
        """,
        grace,
    )
    return frozenset(row["uri"] for row in rows)


async def dataset_domains(connection: Connection) -> list[str]:
    """Domains that have data sets whose files are kept."""
    rows = await connection.fetch("select distinct domain from datasets where removed_at is null order by domain")
    return [row["domain"] for row in rows]


async def removable_datasets(connection: Connection, domain: str, age: timedelta) -> list[RemovableDataset]:
    """Old data sets that are the newest version of no name, and that no job needs, see `marked_objects`."""
    rows = await connection.fetch(
        """
        with recursive needed as (
            select jobs.job_id from jobs left join releases using (job_id)
            where jobs.state in ('queued', 'running', 'paused')
               or jobs.completed is not null and releases.job_id is null
            union
            select jobs.continued->>'job_id' from needed join jobs using (job_id) where jobs.continued is not null
        )
        select dataset_id, bytes from datasets
        where domain = $1 and removed_at is null and created_at < now() - $2::interval
          and not exists (
              select from jobs join needed using (job_id)
              where datasets.dataset_id in (jobs.dataset_id, jobs.request->>'datasetId')
          )
          and dataset_id not in (
              select distinct on (name) dataset_id from dataset_versions where domain = $1 order by name, version desc
          )
        order by dataset_id
        """,
        domain,
        age,
    )
    return [RemovableDataset(**dict(row)) for row in rows]


async def remove_dataset(connection: Connection, dataset_id: str, because: str) -> None:
    """Let the file of a data set go; its row stays."""
    await connection.execute(
        "update datasets set removed_at = now(), removed_because = $2 where dataset_id = $1 and removed_at is null",
        dataset_id,
        because,
    )
