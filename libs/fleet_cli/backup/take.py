"""Copies a running embedded fleet into a folder.

The order is the consistency: streams first, then the database, then the objects. What the database has of events beyond
the streams' copy was handled before and is ignored when it comes again; objects are immutable and named by digest, so
the later copy has everything that the others name.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from minio import Minio
from minio.error import S3Error
from nats.js.errors import NotFoundError
from urllib3.exceptions import HTTPError

from fleet_cli.backup.database import dump_database
from fleet_cli.backup.manifest import NAME, BackupManifest, Kept
from fleet_cli.backup.stream_snapshots import snapshot_stream
from fleet_cli.stack.credentials import load_or_create
from fleet_cli.stack.environment import ports_before
from fleet_cli.stack.home import Home, write_secret
from fleet_cli.stack.objects import BUCKET, s3_client
from fleet_events.buckets import BUCKETS
from fleet_events.topology import DEAD_STREAM, STREAMS
from lorafleet import bus
from lorafleet.errors import BadInput, FleetError
from lorafleet.home import FleetHome

__all__ = ["SECRETS", "take_backup"]

SECRETS = ("keys", "tokens")
"""Folders of the home that are copied as they are: without them nobody could read the rest."""
COPIED_STREAMS = (*(one.name for one in STREAMS), DEAD_STREAM, *(one.stream for one in BUCKETS if one.kept))


def take_backup(home: FleetHome, to: Path, note: Callable[[str], None]) -> BackupManifest:
    """Copy a running fleet into a folder that does not exist yet; `note` is called with a line about each step.

    The folder's last file is the manifest: a copy that was cut short has none and is refused by `restore`.

    Raises:
        BadInput: the folder is there, or the home is of no embedded fleet.
        FleetError: a server does not answer, or refuses.
    """
    ports = ports_before(Home(home.folder))
    if not ports or not home.file.database_admin_url:
        raise BadInput("--home", f"{home.folder} is not of a fleet that `lorafleet up` started")
    if to.exists():
        raise BadInput("FOLDER", f"{to} is there already; name a new folder")
    credentials = load_or_create(Home.open(home.folder), tls=home.file.ca_file is not None)
    began = datetime.now(UTC)
    note("copying the streams")
    streams = asyncio.run(_copy_streams(home, to))
    note("copying the database")
    dump_database(home.file.database_admin_url, to / "database.dump")
    note("copying the objects")
    store = s3_client(ports["s3"], credentials.s3["admin"], credentials.certificates)
    try:
        _copy_objects(store, to / "objects")
    except (S3Error, HTTPError) as error:
        raise FleetError(f"the object store does not answer: {error}") from error
    for name in SECRETS:
        shutil.copytree(home.folder / name, to / name)
    files = sorted(path for path in to.rglob("*") if path.is_file())
    manifest = BackupManifest(
        began=began,
        ended=datetime.now(UTC),
        database="database.dump",
        streams=streams,
        files={str(path.relative_to(to)): Kept.of(path) for path in files},
    )
    write_secret(to / NAME, manifest.model_dump_json(indent=1))
    return manifest


async def _copy_streams(home: FleetHome, to: Path) -> dict[str, dict[str, object]]:
    """Make the folder and copy the streams, once the bus answers: of a stopped fleet nothing is left behind."""
    found: dict[str, dict[str, object]] = {}
    async with bus.connect(home) as client:
        await asyncio.to_thread(_make_folder, to / "streams")
        for name in COPIED_STREAMS:
            try:
                await client.jetstream().stream_info(name)
            except NotFoundError:
                continue  # the fleet runs an older release, which does not have it
            found[name] = dict(await snapshot_stream(client, name, to / "streams" / name))
    return found


def _make_folder(folder: Path) -> None:
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, parents=True)


def _copy_objects(store: Minio, to: Path) -> None:
    to.mkdir(mode=0o700)
    for one in store.list_objects(BUCKET, recursive=True):
        if one.object_name and not one.is_dir:
            if ".." in PurePosixPath(one.object_name).parts:
                raise FleetError(f"the object {one.object_name!r} cannot be a file below {to}; delete it first")
            try:
                store.fget_object(BUCKET, one.object_name, str(to / one.object_name))
            except S3Error as error:
                if error.code != "NoSuchKey":  # else it was collected since it was listed: nothing refers to it
                    raise
