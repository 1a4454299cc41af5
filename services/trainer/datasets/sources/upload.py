"""Files uploaded to the trainer, or put below the domain's own prefix of the object store."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from services.trainer.datasets.dataset import Format
from services.trainer.datasets.sources.source import Access, Gathered, Source
from services.trainer.datasets.store import samples as store
from services.trainer.datasets.worker.rows import format_of
from services.trainer.datasets.worker.spec import InputFile

MAX_OBJECTS = 1000


def prefix_of(domain: str) -> str:
    """Where a domain's own files lie in the object store."""
    return f"trainer/uploads/{domain}/"


class Upload(Source):
    """A JSONL, CSV or Parquet file that came by `PUT /v1/uploads`, by the id that was answered."""

    kind: Literal["upload"] = "upload"
    upload_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    origin: ClassVar[str] = "upload"

    async def gather(self, to: Path, access: Access) -> Gathered:
        async with access.service.db.acquire(timeout=5) as connection:
            found = await store.find_upload(connection, access.domain, self.upload_id)
            await store.touch_upload(connection, access.domain, self.upload_id)
        if found is None:
            raise access.fault("upload_id", self.upload_id, f"the id of an upload of domain {access.domain!r}")
        path = await access.service.blobs.fetch(found.blob, to / f"data.{found.format}")
        file = InputFile(path=path, format=found.format, name=found.filename)
        return Gathered((file,), {"filename": found.filename, "sha256": found.blob.sha256, "bytes": found.blob.bytes})


class S3Prefix(Source):
    """All JSONL, CSV and Parquet objects below a prefix of the domain's own part of the bucket.

    `prefix` is relative to `trainer/uploads/<domain>/`. Objects of other endings are left alone.
    """

    kind: Literal["s3"] = "s3"
    prefix: Annotated[str, Field(max_length=800)]

    origin: ClassVar[str] = "s3"

    def check(self, access: Access) -> None:
        # S3 knows no parent folders, but what lies behind a gateway may.
        if self.prefix.startswith("/") or ".." in self.prefix.split("/") or "://" in self.prefix or "\\" in self.prefix:
            expected = f"a prefix relative to {prefix_of(access.domain)}, without '..'"
            raise access.fault("prefix", repr(self.prefix), expected)

    async def gather(self, to: Path, access: Access) -> Gathered:
        own = prefix_of(access.domain)
        objects = await access.service.blobs.find(own + self.prefix, at_most=MAX_OBJECTS + 1)
        fitting = [one for one in sorted(objects, key=lambda one: one.key) if format_of(one.key)]
        if not fitting:
            expected = f"the prefix of .jsonl, .ndjson, .csv or .parquet objects below {own}"
            raise access.fault("prefix", repr(self.prefix), expected)
        if len(objects) > MAX_OBJECTS:
            raise access.fault("prefix", f"more than {MAX_OBJECTS} objects below {self.prefix!r}", "a longer prefix")
        if (total := sum(one.bytes for one in fitting)) > access.limit:
            raise access.fault("prefix", f"{total} bytes below {self.prefix!r}", f"at most {access.limit}")
        files: list[InputFile] = []
        for number, one in enumerate(fitting):
            path = to / f"{number}.data"
            await access.service.blobs.fetch_object(one.key, path)
            files.append(InputFile(path=path, format=_format(one.key), name=one.key.removeprefix(own)))
        etags = [{"name": one.key.removeprefix(own), "bytes": one.bytes, "etag": one.etag} for one in fitting]
        return Gathered(tuple(files), {"objects": etags})


def _format(name: str) -> Format:
    found = format_of(name)
    if found is None:
        raise ValueError(f"unsupported file extension in {name!r}; expected .jsonl, .ndjson, .csv or .parquet")
    return found
