"""Which database a service's objects belong to: an object beside them, `<service>/owner`, names it.

A sweep deletes what its database does not refer to. A database that is empty refers to nothing, and one that was
restored from an old backup to nothing that was written since. So each database has an id and a generation, which grows
every `EVERY_SECONDS`, first in the database and then in the marker. A marker that names another database, or a later
generation, was written by a database that knew more than this one.
"""

import asyncio
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import NoReturn

import structlog

from fleet_kit.blobs import Blobs
from fleet_kit.db import Connection, Pool
from fleet_kit.faults import describe

__all__ = ["Marker", "adopt", "keep_owning", "own", "why_not_owned"]

log = structlog.get_logger()

EVERY_SECONDS = 600.0
"""A backup that is older than this is known to be behind its objects."""
RETRY_SECONDS = 5.0
NAME = "owner"


@dataclass(frozen=True)
class Marker:
    """A database, and how far it had come."""

    database_id: str
    generation: int


def why_not_owned(database: Marker, marker: Marker) -> str:
    """Why the objects are not this database's; empty where they are. Pure."""
    if marker.database_id != database.database_id:
        return f"the objects belong to database {marker.database_id}, this is {database.database_id}"
    if marker.generation > database.generation:
        return (
            f"the objects were written up to generation {marker.generation} of this database, which is at "
            f"{database.generation}: it was restored from an older backup"
        )
    return ""


async def own(db: Pool, blobs: Blobs, kinds: Collection[str]) -> str:
    """Mark the objects as this database's, one generation further, where they are; else why they are not.

    Where there is no marker they are this database's if all of them were written since it was made.

    Args:
        db: of the service.
        blobs: of the same service.
        kinds: the objects that count.
    """
    # In this order: the database is never behind a marker that it wrote.
    marker = await _marker(blobs)
    async with db.acquire(timeout=5) as connection:
        database, made_at = await _database(connection)
    if marker is None:
        older = await _written_before(blobs, kinds, made_at)
        why = f"nothing tells whose the objects are, and {older} is older than this database" if older else ""
    else:
        why = why_not_owned(database, marker)
    if not why:
        async with db.acquire(timeout=5) as connection:
            await _mark(blobs, Marker(database.database_id, await _advance(connection, 0)))
    return why


async def adopt(db: Pool, blobs: Blobs) -> Marker:
    """Make the objects this database's, whosever they were: what it does not refer to can be deleted then."""
    before = await _marker(blobs)
    async with db.acquire(timeout=5) as connection:
        database, _ = await _database(connection)
        generation = await _advance(connection, before.generation if before else 0)
    marker = Marker(database.database_id, generation)
    await _mark(blobs, marker)
    log.warning("objects_adopted", **asdict(marker), before=asdict(before) if before else None)
    return marker


async def keep_owning(db: Pool, blobs: Blobs, kinds: Collection[str]) -> NoReturn:
    """Mark the objects from the start on, and again every `EVERY_SECONDS`."""
    while True:
        wait = EVERY_SECONDS
        try:
            if why := await own(db, blobs, kinds):
                log.warning("objects_not_owned", reason=why)
        except Exception as error:
            log.warning("objects_not_marked", reason=describe(error))
            wait = RETRY_SECONDS
        await asyncio.sleep(wait)


async def _marker(blobs: Blobs) -> Marker | None:
    content = await blobs.read_named(NAME)
    if content is None:
        return None
    try:
        found = json.loads(content)
        return Marker(str(found["database_id"]), int(found["generation"]))
    except (ValueError, KeyError, TypeError):
        return Marker("(unreadable)", 0)


async def _mark(blobs: Blobs, marker: Marker) -> None:
    await blobs.write_named(NAME, json.dumps(asdict(marker)).encode())


async def _written_before(blobs: Blobs, kinds: Collection[str], moment: datetime) -> str:
    """Key of an object that is older; empty where none is."""
    for kind in sorted(kinds):
        async for page in blobs.pages(kind):
            for one in page:
                # A store may keep whole seconds.
                if one.modified < moment.replace(microsecond=0):
                    return one.key
    return ""


async def _database(connection: Connection) -> tuple[Marker, datetime]:
    """This database, and when it was made."""
    row = await connection.fetchrow("select database_id, generation, made_at from object_owner")
    if row is None:
        raise LookupError("object_owner has no row: run the service's migrations")
    return Marker(row["database_id"], row["generation"]), row["made_at"]


async def _advance(connection: Connection, at_least: int) -> int:
    """The next generation, which is greater than `at_least`."""
    found = await connection.fetchval(
        "update object_owner set generation = greatest(generation, $1) + 1 returning generation", at_least
    )
    return int(found)
