"""Content in S3, addressed by its digest and checked on every read.

The minio client is synchronous, so each call runs in a thread.
"""

import asyncio
import hashlib
import io
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

import urllib3
from minio import Minio
from minio.error import S3Error

from fleet_events.v1 import Blob
from fleet_kit.errors import BlobCorrupt, BlobMissing
from fleet_kit.settings import ServiceSettings
from fleet_kit.sockets import OPTIONS

__all__ = ["BlobRef", "Blobs", "FoundObject"]

BlobRef = Blob
CHUNK = 1024 * 1024
PAGE = 1000
T = TypeVar("T")


@dataclass(frozen=True)
class FoundObject:
    """An object in the bucket under a name of its writer's choice."""

    key: str
    bytes: int
    etag: str
    modified: datetime


class Blobs:
    """The object store as one service sees it: it writes below its own name and reads what others published.

    Objects are named `<service>/<kind>/<sha256>`, so writing the same content twice is one object, and a
    reader knows what to expect.
    """

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        self._service = service
        self._bucket = settings.s3_bucket
        self._client = _connect(settings, read_seconds=30, retries=urllib3.Retry(total=1, backoff_factor=0.1))
        # A thread that waits for a store that hangs ends when the probe does.
        self._prober = _connect(settings, read_seconds=2, retries=False)

    async def put(self, kind: str, data: bytes | Path, *, content_type: str = "application/octet-stream") -> Blob:
        """Store bytes or a file; returns its reference. Idempotent: the name is the content's digest."""
        return await asyncio.to_thread(self._put, kind, data, content_type)

    async def get(self, blob: Blob) -> bytes:
        """The content; raises `BlobMissing` or `BlobCorrupt`."""
        with tempfile.TemporaryDirectory() as folder:
            path = await self.fetch(blob, Path(folder) / "content")
            return await asyncio.to_thread(path.read_bytes)

    async def fetch(self, blob: Blob, to: Path) -> Path:
        """Stream the content to a file, which appears whole and verified or not at all.

        Raises:
            BlobMissing: nothing lies there.
            BlobCorrupt: the bytes are not those of the digest.
        """
        await asyncio.to_thread(self._fetch, blob, to)
        return to

    async def delete(self, blob: Blob) -> None:
        """Remove an object of this service, for example an old checkpoint."""
        bucket, _, key = blob.uri.removeprefix("s3://").partition("/")
        await asyncio.to_thread(self._named, self._client.remove_object, bucket, key)

    async def find(self, prefix: str, *, at_most: int) -> list[FoundObject]:
        """Objects whose names begin with `prefix`, in the order of names; the service must be allowed to list there."""
        return await asyncio.to_thread(self._find, prefix, at_most)

    async def pages(self, kind: str) -> AsyncIterator[list[FoundObject]]:
        """All objects of one kind of this service, in the order of names, a page at a time."""
        prefix, last = f"{self._service}/{kind}/", ""
        while page := await asyncio.to_thread(self._find, prefix, PAGE, last):
            yield page
            last = page[-1].key

    def uri(self, key: str) -> str:
        """How a reference names the object."""
        return f"s3://{self._bucket}/{key}"

    async def delete_unchanged(self, found: FoundObject) -> bool:
        """Remove an object of this service unless it was written again since it was listed; whether it is gone."""
        return await asyncio.to_thread(self._delete_unchanged, found)

    async def fetch_object(self, key: str, to: Path) -> Path:
        """Stream an object that is not named by its digest to a file; raises `BlobMissing`."""

        def call(bucket: str, name: str) -> None:
            self._client.fget_object(bucket, name, str(to))

        await asyncio.to_thread(self._named, call, self._bucket, key)
        return to

    async def read_named(self, name: str) -> bytes | None:
        """The object `<service>/<name>`, which is not named by its digest; None where there is none."""
        return await asyncio.to_thread(self._read_named, name)

    async def write_named(self, name: str, content: bytes) -> None:
        """Write the object `<service>/<name>`, over one that is there."""
        key = f"{self._service}/{name}"
        await asyncio.to_thread(self._client.put_object, self._bucket, key, io.BytesIO(content), len(content))

    async def probe(self) -> None:
        """Write a small object, always the same one; raises what the client raises."""
        key = f"{self._service}/ready"
        # Not empty: some stores keep an object without content where there is still room.
        await asyncio.to_thread(self._prober.put_object, self._bucket, key, io.BytesIO(b"ready"), 5)

    def _find(self, prefix: str, at_most: int, after: str = "") -> list[FoundObject]:
        found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True, start_after=after or None)
        return [
            FoundObject(one.object_name, one.size or 0, one.etag or "", one.last_modified or datetime.now(UTC))
            for one in islice(found, at_most)
        ]

    def _delete_unchanged(self, found: FoundObject) -> bool:
        try:
            now = self._client.stat_object(self._bucket, found.key)
        except S3Error as error:
            if error.code in {"NoSuchKey", "NoSuchBucket"}:
                return False
            raise
        # A stat tells whole seconds, a listing may tell more.
        if now.last_modified is None or now.last_modified.replace(microsecond=0) > found.modified:
            return False
        self._client.remove_object(self._bucket, found.key)
        return True

    def _read_named(self, name: str) -> bytes | None:
        try:
            response = self._named(self._client.get_object, self._bucket, f"{self._service}/{name}")
        except BlobMissing:
            return None
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def _put(self, kind: str, data: bytes | Path, content_type: str) -> Blob:
        digest = _digest(data)
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        key = f"{self._service}/{kind}/{digest}"
        if isinstance(data, bytes):
            self._client.put_object(self._bucket, key, io.BytesIO(data), size, content_type)
        else:
            self._client.fput_object(self._bucket, key, str(data), content_type)
        return Blob(uri=f"s3://{self._bucket}/{key}", sha256=digest, bytes=size)

    def _fetch(self, blob: Blob, to: Path) -> None:
        bucket, _, key = blob.uri.removeprefix("s3://").partition("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=to.parent, prefix=".fetch-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                response = self._named(self._client.get_object, bucket, key)
                try:
                    digest = hashlib.sha256()
                    for chunk in response.stream(CHUNK):
                        digest.update(chunk)
                        file.write(chunk)
                finally:
                    response.close()
                    response.release_conn()
            if digest.hexdigest() != blob.sha256:
                raise BlobCorrupt(f"{blob.uri} has digest {digest.hexdigest()}, expected {blob.sha256}")
            Path(name).replace(to)
        finally:
            Path(name).unlink(missing_ok=True)

    @staticmethod
    def _named(call: Callable[[str, str], T], bucket: str, key: str) -> T:
        try:
            return call(bucket, key)
        except S3Error as error:
            if error.code in {"NoSuchKey", "NoSuchBucket"}:
                raise BlobMissing(f"s3://{bucket}/{key} does not exist") from error
            raise


def _connect(settings: ServiceSettings, *, read_seconds: float, retries: urllib3.Retry | bool) -> Minio:
    scheme, _, address = settings.s3_endpoint.rpartition("://")
    token = settings.s3_session_token
    client = Minio(
        address.rstrip("/"),
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        session_token=token.get_secret_value() or None if token else None,
        secure=scheme == "https" if scheme else settings.s3_secure,
        region=settings.s3_region,
        http_client=urllib3.PoolManager(
            maxsize=16,
            timeout=urllib3.Timeout(connect=2, read=read_seconds),
            retries=retries,
            ssl_context=settings.tls.client,
            socket_options=OPTIONS,
        ),
    )
    if settings.s3_addressing == "virtual":
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif settings.s3_addressing == "path":
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client


def _digest(data: bytes | Path) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
