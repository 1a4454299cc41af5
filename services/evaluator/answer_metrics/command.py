"""A metric that a command measures, in a process of its own with limits: for what is not trusted or may not end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from services.evaluator.golden.samples import GoldenSample
from services.evaluator.sandbox import sandbox
from services.evaluator.sandbox.sandbox import Limits, SandboxUnavailable, Stopped

MAX_OUTPUT = 64_000
"""Bytes of standard output; a number takes fewer."""
_LIMITED = 'ulimit -v "$1" && ulimit -t "$2" && ulimit -c 0 && shift 2 && exec "$@"'


class CommandSettings(BaseModel):
    """A command that reads `{"sample": {...}, "answer": "..."}` on standard input and prints a number from 0 to 1, or
    `null` where the metric does not apply."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: tuple[str, ...] = Field(min_length=1)
    """Program and arguments, for example ["/opt/metrics/pass_at_1", "--fast"]; started without a shell."""
    seconds: float = Field(default=10.0, gt=0, le=600)
    """Of one answer; then the process and its children are killed."""
    memory_mb: int = Field(default=512, ge=16)
    """Address space."""
    confined: bool = False
    """Run in the sandbox: no network, no further process or thread, nothing written but in its own folder."""
    reads: tuple[str, ...] = ()
    """Folders that a confined command may read, beside system libraries and its program's own."""


class MetricFault(Exception):
    """The metric has no value for this answer; the message is for the report."""


async def measure(settings: CommandSettings, sample: GoldenSample, answer: str) -> object:
    """What the command printed, as JSON. Raises MetricFault."""
    order = json.dumps({"sample": asdict(sample), "answer": answer}, ensure_ascii=False).encode()
    if settings.confined:
        return _value(await _confined(settings, order))
    limits = (str(settings.memory_mb * 1024), str(int(settings.seconds) + 1))
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", _LIMITED, "sh", *limits, *settings.command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},  # none of the service's credentials
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(settings.seconds):
            printed = await _talk(process, order)
            status = await process.wait()
    except TimeoutError:
        raise MetricFault(f"no value within {settings.seconds:g} s") from None
    finally:
        _kill(process)
        await process.wait()
    if status != 0:
        raise MetricFault(f"exited with status {status}")
    return _value(printed)


async def _confined(settings: CommandSettings, order: bytes) -> bytes:
    program = shutil.which(settings.command[0])
    if program is None:
        raise MetricFault(f"{settings.command[0]} is no program")
    limits = Limits(seconds=settings.seconds, memory_mb=settings.memory_mb, output_bytes=MAX_OUTPUT)
    reads = [*settings.reads, *_folders_of(program)]
    try:
        ended = await sandbox.run([program, *settings.command[1:]], order, limits, reads)
    except (Stopped, SandboxUnavailable) as fault:
        raise MetricFault(str(fault)) from None
    if ended.status != 0:
        raise MetricFault(f"exited with status {ended.status}")
    return ended.output


def _folders_of(program: str) -> set[str]:
    """Where the program stands, as it is called and as it is."""
    return {os.path.dirname(program), os.path.dirname(os.path.realpath(program))}


def _value(printed: bytes) -> object:
    try:
        found: object = json.loads(printed)
    except ValueError:
        raise MetricFault(f"printed {printed[:60]!r}; expected a number from 0 to 1, or null") from None
    return found


async def _talk(process: asyncio.subprocess.Process, order: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer without reading all of it
        process.stdin.write(order)
        await process.stdin.drain()
    process.stdin.close()
    printed = b""
    while part := await process.stdout.read(MAX_OUTPUT):
        printed += part
        if len(printed) > MAX_OUTPUT:
            raise MetricFault(f"printed more than {MAX_OUTPUT} bytes")
    return printed


def _kill(process: asyncio.subprocess.Process) -> None:
    """The process and what it started; its group outlives it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
