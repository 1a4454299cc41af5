"""Frozen data sets read back: their records as a stream of JSON lines."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fleet_kit.text_lines import async_lines_of
from services.trainer.child_process import bare_environment, child
from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.dataset import StoredDataset
from services.trainer.datasets.records import Split
from services.trainer.work_folder import work_folder

_CHUNK = 64 * 1024


class ReadingFailed(Exception):
    """The lines ended before the last record."""


async def read_lines(stored: StoredDataset, split: Split | None, service: DatasetContext) -> AsyncGenerator[bytes]:
    """The records as bytes of NDJSON, in the order of ids; as slow as its reader.

    The first item is empty and comes when the file is here and verified: until then nothing is promised.

    Raises:
        BlobMissing, BlobCorrupt: before the first item.
        ReadingFailed: after it.
    """
    with work_folder(service.settings.cache_dir) as folder:
        path = await service.blobs.fetch(stored.dataset.blob, folder / "data.parquet")
        yield b""
        async with child(
            "services.trainer.datasets.worker.export",
            str(path),
            *([split] if split else []),
            environment=bare_environment(PYTHONIOENCODING="utf-8"),
        ) as process:
            assert process.stdout is not None
            while chunk := await process.stdout.read(_CHUNK):
                yield chunk
            if status := await process.wait():
                raise ReadingFailed(f"data set {stored.dataset.dataset_id}: its reader exited with status {status}")


async def part_of(chunks: AsyncGenerator[bytes], offset: int, limit: int | None) -> AsyncIterator[bytes]:
    """Lines from the one at `offset` on, at most `limit`, of what `read_lines` gives; its first item as it is.

    The reader is ended with the last line that is wanted.
    """
    async with aclosing(chunks):
        yield await anext(chunks)
        if not offset and limit is None:
            async for chunk in chunks:
                yield chunk
            return
        at, end = 0, None if limit is None else offset + limit
        async for line in async_lines_of(chunks):
            if at >= offset:
                yield line.encode() + b"\n"
            at += 1
            if end is not None and at >= end:
                return
