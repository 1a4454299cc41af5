"""SQL of uploaded files that may hold rows about people: one statement a function, connection first."""

from datetime import datetime

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.datasets.dataset import StoredUpload
from services.trainer.datasets.store.samples import upload_of


async def uploads_of(connection: Connection, domain: str) -> list[StoredUpload]:
    """All uploads of a domain ("*": of all)."""
    rows = await connection.fetch(
        "select * from uploads where $1 = '*' or domain = $1 order by domain, upload_id", domain
    )
    return [upload_of(row) for row in rows]


async def uploads_not_looked_at(connection: Connection, at_most: int) -> list[StoredUpload]:
    """Uploads that were not searched yet for people who were forgotten before they came, or before a recipe named the
    column that has its people."""
    rows = await connection.fetch(
        """
        select * from uploads
        where exists (select from erasures where erasures.domain in (uploads.domain, '*')) and (
            looked_at is null or exists (
                select from dataset_builds build where build.domain = uploads.domain
                  and build.created_at > uploads.looked_at and build.recipe @> jsonb_build_object(
                      'sources', jsonb_build_array(jsonb_build_object('upload_id', uploads.upload_id))
                  )
            )
        )
        order by created_at limit $1
        """,
        at_most,
    )
    return [upload_of(row) for row in rows]


async def columns_naming_people(connection: Connection, upload: StoredUpload) -> list[str]:
    """Columns that recipes take for the people of an upload's rows; `subject` where they name none."""
    rows = await connection.fetch(
        """
        select distinct source->'columns'->>'subject' as name
        from dataset_builds, jsonb_array_elements(recipe->'sources') source
        where domain = $1 and source->>'upload_id' = $2 and source->'columns' ? 'subject'
        """,
        upload.domain,
        upload.upload_id,
    )
    return sorted({"subject", *(row["name"] for row in rows)})


async def exchange_file(connection: Connection, upload: StoredUpload, left: v1.Blob, erasures: list[str]) -> bool:
    """Name the file that is left of an upload in place of the one it had; False where it has another by now."""
    return bool(
        await connection.fetchval(
            """
            update uploads set former_uri = uri, uri = $4, sha256 = $5, bytes = $6,
                erased_by = array(select distinct unnest(erased_by || $7::text[]) order by 1)
            where domain = $1 and upload_id = $2 and uri = $3 returning true
            """,
            upload.domain,
            upload.upload_id,
            upload.blob.uri,
            left.uri,
            left.sha256,
            left.bytes,
            erasures,
        )
    )


async def former_files(connection: Connection) -> list[str]:
    """URIs of files that uploads had before rows were taken out of them."""
    rows = await connection.fetch("select former_uri from uploads where former_uri is not null order by former_uri")
    return [row["former_uri"] for row in rows]


async def drop_former(connection: Connection, uri: str) -> None:
    """Forget the name of a file that is deleted."""
    await connection.execute("update uploads set former_uri = null where former_uri = $1", uri)


async def note_looked_at(connection: Connection, upload: StoredUpload, at: datetime) -> None:
    """Keep that an upload was searched for everybody who was forgotten by then."""
    await connection.execute(
        "update uploads set looked_at = $3 where domain = $1 and upload_id = $2", upload.domain, upload.upload_id, at
    )


async def erased_from(connection: Connection, erasure_id: str) -> list[str]:
    """Ids of the uploads that an erasure took rows out of."""
    rows = await connection.fetch(
        "select distinct upload_id from uploads where $1 = any(erased_by) order by upload_id", erasure_id
    )
    return [row["upload_id"] for row in rows]
