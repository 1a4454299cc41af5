"""SQL of golden prints: one statement a function, connection first."""

from collections.abc import AsyncIterator, Sequence

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.datasets.golden.index import GoldenPrint


async def add_part(connection: Connection, event: v1.GoldenDatasetPublished) -> bool:
    """Note that a part of a revision has come; False when it was there."""
    added = await connection.fetchval(
        """
        insert into golden_parts (dataset_id, version, revision, part, parts, domain, scheme)
        values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning true
        """,
        event.dataset_id,
        event.version,
        event.revision,
        event.part,
        event.parts,
        event.domain,
        event.scheme,
    )
    return bool(added)


async def add_prints(
    connection: Connection, event: v1.GoldenDatasetPublished, prints: Sequence[tuple[bytes, bytes]]
) -> None:
    """Keep a part's digests and signatures."""
    await connection.execute(
        """
        insert into golden_digests (dataset_id, version, revision, part, digest, signature)
        select $1, $2, $3, $4, * from unnest($5::bytea[], $6::bytea[]) on conflict do nothing
        """,
        event.dataset_id,
        event.version,
        event.revision,
        event.part,
        [digest for digest, _ in prints],
        [signature for _, signature in prints],
    )


async def forget_superseded(connection: Connection, dataset_id: str, version: str) -> None:
    """Drop the revisions below one that is complete."""
    await connection.execute(
        """
        delete from golden_parts old
        where old.dataset_id = $1 and old.version = $2 and old.revision < (
            select max(revision) from (
                select revision from golden_parts where dataset_id = $1 and version = $2
                group by revision having count(*) = max(parts)
            ) complete
        )
        """,
        dataset_id,
        version,
    )


async def list_prints(connection: Connection) -> AsyncIterator[GoldenPrint]:
    """Every golden prompt of every domain; needs a transaction."""
    async for row in connection.cursor(
        """
        select dataset_id || '@' || version as reference, scheme, digest, signature
        from golden_digests join golden_parts using (dataset_id, version, revision, part) order by 1, 3
        """
    ):
        yield GoldenPrint(row["reference"], bytes(row["digest"]), bytes(row["signature"]), row["scheme"])
