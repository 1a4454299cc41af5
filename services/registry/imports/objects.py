"""Fetches an adapter's files from the fleet's bucket, from the place that is the domain's alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fleet_kit.blobs import Blobs
from fleet_kit.errors import BlobMissing
from services.registry.imports.names import EXPECTED, BadPath, inner_path, is_archive, is_wanted, pickled
from services.registry.imports.source import CannotFetch, Fetched, ObjectSource

MAX_OBJECTS = 1000


def prefix_of(domain: str) -> str:
    """Where files of a domain are put to be imported."""
    return f"registry/imports/{domain}/"


@dataclass(frozen=True, slots=True)
class DomainObjects:
    """What a domain has put into the fleet's bucket to be imported."""

    blobs: Blobs
    bucket: str
    domain: str

    async def fetch(self, source: ObjectSource, to: Path, *, most: int) -> Fetched:
        """The wanted objects below the prefix, or the one of that name, in the folder `to`.

        Raises CannotFetch: another bucket or another domain's place, nothing there, more than `most` bytes.
        """
        own, bucket = prefix_of(self.domain), self.bucket
        if source.bucket != bucket or not source.prefix.startswith(own) or ".." in source.prefix.split("/"):
            raise CannotFetch(
                f"s3://{source.bucket}/{source.prefix[:200]} may not be read for domain {self.domain}, "
                f"expected s3://{bucket}/{own}…"
            )
        found = await self.blobs.find(source.prefix, at_most=MAX_OBJECTS)
        place = source.prefix.rstrip("/") + "/"
        objects = [one for one in found if one.key == source.prefix or one.key.startswith(place)]
        wanted = [one for one in objects if is_wanted(PurePosixPath(one.key).name) or is_archive(one.key)]
        if not wanted:
            if name := pickled(one.key for one in objects):
                raise CannotFetch(f"{name} may hold pickled code, which is never read; expected {EXPECTED}")
            raise CannotFetch(f"no adapter below s3://{bucket}/{source.prefix[:200]}, expected {EXPECTED}")
        if (size := sum(one.bytes for one in wanted)) > most:
            raise CannotFetch(f"{size} bytes are over the {most} that an import may have", 413)
        for one in wanted:
            name = one.key.removeprefix(place) if one.key != source.prefix else PurePosixPath(one.key).name
            try:
                target = to.joinpath(*inner_path(name).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                await self.blobs.fetch_object(one.key, target)
            except BadPath as error:
                raise CannotFetch(str(error)) from error
            except BlobMissing as error:
                raise CannotFetch(f"{error}; it was deleted in the meantime") from error
            if target.stat().st_size != one.bytes:
                raise CannotFetch(f"{one.key} changed while it was read; retry the import")
        return Fetched(to, f"s3://{bucket}/{source.prefix}")
