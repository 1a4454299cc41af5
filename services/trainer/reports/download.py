"""Files of a finished job as downloads: from the object store through a file that frees itself."""

import asyncio
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from fastapi.responses import StreamingResponse

from fleet_events import v1
from services.trainer.jobs.context import JobContext
from services.trainer.work_folder import work_folder

_CHUNK = 256 * 1024


async def download(blob: v1.Blob, name: str, service: JobContext) -> StreamingResponse:
    """One object under a file name."""
    with work_folder(service.settings.cache_dir) as folder:
        path = await service.blobs.fetch(blob, folder / "content")
        return _answer(path.open("rb"), name, "application/octet-stream")


async def archive(files: Mapping[str, v1.Blob], name: str, service: JobContext) -> StreamingResponse:
    """Several objects as a tar of `files` (name in the archive → object); equal content gives equal bytes."""
    with work_folder(service.settings.cache_dir) as folder:
        for inside, blob in files.items():
            await service.blobs.fetch(blob, folder / "content" / inside)
        packed = await asyncio.to_thread(_pack, folder / "content", tuple(files), folder / "packed.tar")
        return _answer(packed.open("rb"), name, "application/x-tar")


def _pack(folder: Path, names: tuple[str, ...], to: Path) -> Path:
    with tarfile.open(to, "w", format=tarfile.USTAR_FORMAT) as packed:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = (folder / name).stat().st_size
            entry.mode = 0o644
            with (folder / name).open("rb") as file:
                packed.addfile(entry, file)
    return to


def _answer(file: IO[bytes], name: str, content_type: str) -> StreamingResponse:
    # The file has no name any more once its folder is gone: a reader that stops leaves nothing behind.
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(file.seek(0, 2)),
    }
    file.seek(0)
    return StreamingResponse(_chunks(file), media_type=content_type, headers=headers)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
