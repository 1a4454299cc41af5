"""Frozen data sets read back: their records as a stream of JSON lines."""

from collections.abc import AsyncIterator

from services.trainer.child_process import bare_environment, child
from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.dataset import StoredDataset
from services.trainer.datasets.records import Split
from services.trainer.work_folder import work_folder

_CHUNK = 64 * 1024


class ReadingFailed(Exception):
    """The lines ended before the last record."""


async def read_lines(stored: StoredDataset, split: Split | None, service: DatasetContext) -> AsyncIterator[bytes]:
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
