"""`lorafleet backup` and `restore`: a copy of the embedded fleet, and a fleet made of one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from fleet_cli.group import CommandGroup
from fleet_cli.session import Session


def add(root: CommandGroup) -> None:
    """Add the commands to the root."""

    @root.command("backup")
    def backup(
        session: Session,
        folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder; it will hold all keys, too.")],
        keep: Annotated[
            int | None,
            typer.Option(
                "--keep", min=1, help="Backups of the fleet that stay beside it, with this one (default: all)."
            ),
        ] = None,
        days: Annotated[
            float | None,
            typer.Option("--days", min=0, help="Age from which on those beside it go (default: none goes)."),
        ] = None,
    ) -> None:
        """Write a copy of the embedded fleet, which runs on, into a folder: streams, database, objects, keys."""
        # Only the embedded stack needs its servers' packages; the other commands start without them.
        from fleet_cli.backup.retention import remove_surplus
        from fleet_cli.backup.take import take_backup

        manifest = take_backup(session.home, folder, session.note)
        removed = [str(one) for one in remove_surplus(folder, keep, None if days is None else timedelta(days=days))]
        held = sum(kept.bytes for kept in manifest.files.values())
        objects = len(manifest.objects)
        found = {"folder": str(folder), "streams": len(manifest.streams), "objects": objects, "bytes": held}
        session.answer(
            found | {"removed": removed},
            f"{len(manifest.streams)} streams, the database, {objects} objects: {held} bytes in {folder}",
        )
        for one in removed:
            session.note(f"removed the backup {one}")
        session.note("it holds the fleet's keys: keep it as safe as those")

    @root.command("restore")
    def restore(
        session: Session, folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a backup.")]
    ) -> None:
        """Create an embedded fleet from a backup, in a home (--home) that is empty."""
        from fleet_cli.backup.restore import restore_backup

        manifest = restore_backup(folder, session.home.folder, session.note)
        session.answer(
            {"home": str(session.home.folder), "as_of": manifest.began.isoformat(), "objects": len(manifest.objects)},
            f"restored as of {manifest.began:%Y-%m-%d %H:%M:%S} UTC; start it with `lorafleet up`",
        )
        session.note("`lorafleet gc` collects nothing until `gc --adopt SERVICE` (docs/erasure-and-retention.md)")
