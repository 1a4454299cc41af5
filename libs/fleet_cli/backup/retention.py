"""Which older backups go once a newer one is complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

from fleet_cli.backup.manifest import NAME, BackupManifest

__all__ = ["IDENTITY", "remove_surplus"]

IDENTITY = "keys/issuer.pem"
"""The file that is the same in all backups of a fleet, until its signing key is another."""


def remove_surplus(newest: Path, keep: int | None, age: timedelta | None) -> list[Path]:
    """Remove older backups of the same fleet beside a backup that was just taken; returns their folders, newest first.

    Folders without a manifest, of other fleets and of the time before the fleet's signing key was changed stay.

    Args:
        newest: it stays, whatever the limits are.
        keep: backups that stay, the newest included; None: any number.
        age: those that began longer before the newest go; None: at any age they stay.
    """
    own = _manifest(newest)
    if own is None:
        raise ValueError(f"{newest} holds no backup")
    older = sorted(_older(newest, own), key=lambda one: one[1].began, reverse=True)
    surplus = [
        folder
        for place, (folder, manifest) in enumerate(older, start=2)
        if (keep is not None and place > keep) or (age is not None and own.began - manifest.began > age)
    ]
    for folder in surplus:
        # First, so that what is left of a removal that was cut short is no backup.
        (folder / NAME).unlink()
        shutil.rmtree(folder)
    return surplus


def _older(newest: Path, own: BackupManifest) -> Iterator[tuple[Path, BackupManifest]]:
    for folder in newest.resolve().parent.iterdir():
        if folder == newest.resolve() or folder.is_symlink():
            continue
        found = _manifest(folder)
        if found is not None and found.began < own.began and found.files.get(IDENTITY) == own.files.get(IDENTITY):
            yield folder, found


def _manifest(folder: Path) -> BackupManifest | None:
    try:
        return BackupManifest.model_validate_json((folder / NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
