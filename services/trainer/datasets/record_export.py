"""Frozen data sets read back: their records as a stream of JSON lines."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from services.trainer.datasets.dataset import StoredDataset
from services.trainer.datasets.records import Split
from services.trainer.parts import TrainerService
from services.trainer.work_folder import work_folder

_CHUNK = 64 * 1024


class ReadingFailed(Exception):
    """The lines ended before the last record."""


async def read_lines(stored: StoredDataset, split: Split | None, service: TrainerService) -> AsyncIterator[bytes]:
    """The records as bytes of NDJSON, in the order of ids; as slow as whoever iterates.

    The first item is empty and comes when the file is here and verified: until then nothing is promised.

    Raises:
        BlobMissing, BlobCorrupt: before the first item.
        ReadingFailed: after it.
    """
    with work_folder(service.settings.cache_dir) as folder:
        path = await service.blobs.fetch(stored.dataset.blob, folder / "data.parquet")
        yield b""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.trainer.datasets.worker.export",
            str(path),
            *([split] if split else []),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "PYTHONIOENCODING": "utf-8"},
        )
        try:
            assert process.stdout is not None
            while chunk := await process.stdout.read(_CHUNK):
                yield chunk
            if status := await process.wait():
                raise ReadingFailed(f"data set {stored.dataset.dataset_id}: its reader ended with status {status}")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
