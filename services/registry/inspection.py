"""Opens strangers' files in a process of its own, with bounds on memory and time; what breaks the bounds is refused.

The process gets paths and shapes, no credentials and no environment of ours. It is ended whole when its time is over
or no request waits for it any more. What runs in it is `inspection_process`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from lora_core.layer_shapes import LayerShapes
from services.registry.checkpoint import CannotServe, Contents
from services.registry.imports.adoption import Adopted, BaseFolder
from services.registry.inspection_order import Adopt, Base, Convert, Limits, Open, Order, Outcome, Unpack, Work
from services.registry.settings import RegistrySettings

log = structlog.get_logger()

BYTES_A_SECOND = 8 << 20  # the slowest that files are read, checked and written
MEMORY_PER_BYTE = 4  # a file mapped, its arrays stacked, the other file mapped, and what comparing takes


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of inspections. memory: bytes beside what the files' size allows; seconds: likewise; at_once: processes."""

    memory: int = 512 << 20
    seconds: float = 60.0
    at_once: int = 2

    @classmethod
    def of(cls, settings: RegistrySettings) -> Self:
        return cls(settings.inspection_bytes, settings.inspection_seconds, settings.inspections_at_once)


class Inspector:
    """Starts the processes, few at a time."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._places = asyncio.Semaphore(self._bounds.at_once)

    async def convert(self, folder: Path, name: str, to: Path, shapes: LayerShapes) -> Contents:
        """`checkpoint.convert`, apart. Raises CannotServe also for files that take too long or too much memory."""
        return _contents(await self._inspect(Convert(folder=folder, name=name, to=to, base=Base.of(shapes)), [folder]))

    async def open_artifact(
        self, artifact: Path, checkpoint: Path, shapes: LayerShapes, forms: Sequence[tuple[str, Path]] = ()
    ) -> Contents:
        """`checkpoint.open_artifact`, apart, and `exports.check_arrow` of the forms, (field, file) each."""
        work = Open(artifact=artifact, checkpoint=checkpoint, base=Base.of(shapes), forms=tuple(forms))
        return _contents(await self._inspect(work, [artifact, checkpoint, *(file for _, file in forms)]))

    async def unpack(self, archive: Path, to: Path, most: int) -> int:
        """`archive.unpack`, apart: the bytes that it wrote. Time is given for `most` of them."""
        outcome = await self._inspect(Unpack(archive=archive, to=to, most=most), [archive], further=most)
        if outcome.unpacked is None:
            raise RuntimeError("the inspection returned no unpacked size")
        return outcome.unpacked

    async def adopt(self, folder: Path, name: str, artifact: Path, peft: Path, base: BaseFolder) -> Adopted:
        """`adoption.adopt`, apart. Raises CannotServe as `convert`."""
        work = Adopt(
            folder=folder,
            name=name,
            artifact=artifact,
            peft=peft,
            base_model=base.folder.resolve(),
            base=Base.of(base.shapes),
        )
        # Rounded files grow to twice or more when they are converted, and all of it is in memory at once.
        size = await asyncio.to_thread(_bytes_of, [folder])
        outcome = await self._inspect(work, [folder], further=3 * size, grows=True)
        if outcome.adopted is None:
            raise RuntimeError("the inspection returned no adopted adapter")
        return outcome.adopted

    async def _inspect(self, work: Work, files: Sequence[Path], *, further: int = 0, grows: bool = False) -> Outcome:
        """further: bytes that are written beside those that are read; with `grows` they are in memory too."""
        size = await asyncio.to_thread(_bytes_of, files)
        limits = Limits(
            memory=self._bounds.memory + MEMORY_PER_BYTE * (size + further if grows else size),
            seconds=self._bounds.seconds + (size + further) // BYTES_A_SECOND,
        )
        order = Order(limits=limits, work=work).model_dump_json().encode()
        async with self._places:
            status, answer, complaint = await _run(order, limits.seconds)
        if status == 0:
            outcome = Outcome.model_validate_json(answer)
            if outcome.fault is not None:
                raise CannotServe(outcome.fault.field, outcome.fault.message)
            return outcome
        if -status in {signal.SIGKILL, signal.SIGXCPU, signal.SIGALRM}:
            raise CannotServe(
                "files", f"checking these files took more than {limits.seconds:g} s, or more memory than there is"
            )
        if status < 0:
            # The readers' native parts abort where Python raises MemoryError.
            name, allowed = signal.Signals(-status).name, limits.memory >> 20
            raise CannotServe("files", f"checking these files needs more than {allowed} MiB, or crashed ({name})")
        raise RuntimeError(f"the inspection exited with status {status}: {complaint[-2000:].decode(errors='replace')}")


def _contents(outcome: Outcome) -> Contents:
    if outcome.contents is None:
        raise RuntimeError("the inspection returned no contents")
    return outcome.contents


async def _run(order: bytes, seconds: float) -> tuple[int, bytes, bytes]:
    """Exit status (minus the signal), standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",  # neither the working folder nor variables of the environment decide what is imported
        "-m",
        "services.registry.inspection_process",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
        cwd="/",
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds + 5):  # its own clock comes first
            answer, complaint = await process.communicate(order)
    except TimeoutError:
        answer, complaint = b"", b""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if complaint:
        log.warning("inspection_stderr", text=complaint[-2000:].decode(errors="replace"))
    return process.returncode or 0, answer, complaint


def _bytes_of(paths: Sequence[Path]) -> int:
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in files if file.is_file())
