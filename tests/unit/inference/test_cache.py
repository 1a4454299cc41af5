"""The disk cache: what is kept, what goes, and that nothing damaged is given out."""

import hashlib
import os
from pathlib import Path
from typing import Any

from fleet_events.v1 import Blob
from services.inference.loading.cache import DiskCache


class Store:
    """An object store of these bytes; counts what is fetched."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.fetched: list[str] = []

    def put(self, data: bytes) -> Blob:
        sha256 = hashlib.sha256(data).hexdigest()
        self.data[sha256] = data
        return Blob(uri=f"s3://bucket/{sha256}", sha256=sha256, bytes=len(data))

    async def fetch(self, blob: Blob, path: Path) -> None:
        self.fetched.append(blob.sha256)
        write(path, self.data[blob.sha256])


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def cache_of(store: Store, folder: Path, limit: int) -> DiskCache:
    blobs: Any = store
    return DiskCache(folder, limit, blobs)


async def test_the_least_recently_used_artifacts_leave_the_disk_when_it_is_full(tmp_path: Path) -> None:
    store = Store()
    cache = cache_of(store, tmp_path, 25)
    first, second, third = (store.put(letter * 10) for letter in (b"a", b"b", b"c"))
    for age, blob in ((30, first), (20, second)):
        path = await cache.get(blob)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    await cache.get(first)  # used again: the second is now the older one
    await cache.get(third)
    names = [one.name for one in await cache.contents()]
    assert set(names) == {f"{first.sha256}.arrow", f"{third.sha256}.arrow"}
    assert store.fetched == [first.sha256, second.sha256, third.sha256]


async def test_an_artifact_larger_than_the_limit_stays_while_it_is_the_newest(tmp_path: Path) -> None:
    store = Store()
    cache = cache_of(store, tmp_path, 5)
    assert (await cache.get(store.put(b"a" * 10))).exists()


async def test_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    store = Store()
    cache = cache_of(store, tmp_path, 100)
    blob = store.put(b"weights")
    (await cache.get(blob)).write_bytes(b"damaged")
    assert (await cache.get(blob)).read_bytes() == b"weights"
    assert len(store.fetched) == 2
