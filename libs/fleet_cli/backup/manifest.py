"""What a backup holds, with the digest of everything: it is complete, or it is no backup."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lorafleet.errors import BadInput

__all__ = ["NAME", "BackupManifest", "Kept", "digest_of", "read_manifest"]

NAME = "manifest.json"


class Kept(BaseModel):
    """One file of the backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> Kept:
        return cls(sha256=digest_of(path), bytes=path.stat().st_size)


class BackupManifest(BaseModel):
    """Files by their path below the backup's folder. `streams` has what the restoration of each snapshot needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    began: datetime
    ended: datetime
    database: str
    streams: dict[str, Mapping[str, Any]]
    files: dict[str, Kept]

    @property
    def objects(self) -> dict[str, Kept]:
        """Objects of the store by key."""
        return {path.removeprefix("objects/"): kept for path, kept in self.files.items() if path.startswith("objects/")}

    def faults(self, folder: Path) -> Iterator[str]:
        """What lacks or differs from what was written."""
        for path, kept in self.files.items():
            file = folder / path
            if not file.is_file():
                yield f"{path} is missing"
            elif file.stat().st_size != kept.bytes or digest_of(file) != kept.sha256:
                yield f"{path} is not what was written"


def read_manifest(folder: Path) -> BackupManifest:
    """The manifest of a backup whose files are all there and unchanged; raises `BadInput` otherwise."""
    try:
        manifest = BackupManifest.model_validate_json((folder / NAME).read_bytes())
    except FileNotFoundError as error:
        raise BadInput("FOLDER", f"{folder} holds no backup: {NAME} is missing, or the backup was cut short") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or NAME
        raise BadInput("FOLDER", f"{folder / NAME} cannot be read: {where}: {first['msg']}") from error
    if faults := list(manifest.faults(folder)):
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise BadInput("FOLDER", f"the backup is damaged: {'; '.join(faults[:3])}{more}")
    return manifest


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
