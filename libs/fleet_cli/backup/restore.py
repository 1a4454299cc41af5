"""Makes an embedded fleet of a backup, in a home that holds none."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nats.js.errors import NotFoundError

from fleet_cli.backup.database import restore_database
from fleet_cli.backup.manifest import BackupManifest, read_manifest
from fleet_cli.backup.stream_snapshots import restore_stream
from fleet_cli.backup.take import SECRETS
from fleet_cli.stack import Fleet
from fleet_cli.stack.objects import BUCKET, s3_client
from fleet_cli.stack.postgres import DATABASE, postgres_url
from fleet_cli.stack.schemas import drop_database, provision_database
from lorafleet.errors import BadInput

__all__ = ["restore_backup"]


def restore_backup(backup: Path, home: Path, note: Callable[[str], None]) -> BackupManifest:
    """Fill an empty home. Everything is compared with its digest before anything is written.

    The servers run while they are filled and are stopped again; `lorafleet up` then starts the fleet. A restoration
    that is cut short leaves a home that is not empty: remove it, and begin again.

    Raises:
        BadInput: no backup, a damaged one, or a home that is not empty.
        FleetError: a server refuses.
    """
    note("comparing the backup with its digests")
    manifest = read_manifest(backup)
    if home.exists() and any(home.iterdir()):
        raise BadInput("--home", f"{home} is not empty; restore into a new folder")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in SECRETS:
        shutil.copytree(backup / name, home / name)
        (home / name).chmod(0o700)
    note("starting the servers")
    with Fleet(home) as fleet:
        fleet.start(())
        note("filling the object store")
        store = s3_client(fleet.ports["s3"], fleet.credentials.s3["admin"])
        for key in manifest.objects:
            store.fput_object(BUCKET, key, str(backup / "objects" / key))
        note("filling the streams")
        asyncio.run(_fill_streams(fleet, manifest, backup))
        note("filling the database")
        asyncio.run(_empty_database(fleet))
        restore_database(fleet.info.database_admin_url, backup / manifest.database)
    return manifest


async def _empty_database(fleet: Fleet) -> None:
    """Leave nothing of this release's migrations: a backup of an older one is migrated when the fleet starts."""
    passwords, port = fleet.credentials.postgres, fleet.ports["postgres"]
    await drop_database(postgres_url("postgres", passwords["postgres"], port, "postgres"), DATABASE)
    await provision_database(port, passwords)


async def _fill_streams(fleet: Fleet, manifest: BackupManifest, backup: Path) -> None:
    client = await fleet.connect_nats("admin")
    try:
        for name, described in manifest.streams.items():
            with suppress(NotFoundError):
                await client.jetstream().delete_stream(name)  # the empty one that the start made
            await restore_stream(client, name, backup / "streams" / name, described)
    finally:
        await client.close()
