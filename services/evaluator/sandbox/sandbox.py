"""Runs a program confined (confine.py): no network, one process, a folder of its own, bounded time, memory, output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet_kit import tasks

_CONFINE = Path(__file__).with_name("confine.py")
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom")
"""What programs read to start; what is not there is left out."""
_CONFINED = b"confined"
_START_SECONDS = 60.0
"""For the interpreter to start and confine itself, on a machine that is busy with other things."""
_WATCH_SECONDS = 0.05
_MOST_FILES = 256
_PROBE = """\
import os, socket, sys
def refused(what):
    try:
        what()
    except OSError:
        return True
    return False
def elsewhere():
    open(outside, "w")
def environment():
    open("/proc/1/environ")
outside = os.path.join(os.path.dirname(os.getcwd()), "lorafleet-probe-" + str(os.getpid()))
held = [refused(what) for what in (socket.socket, os.fork, elsewhere, environment)]
open("inside", "w").close()
sys.exit(0 if all(held) else 1)
"""


class SandboxUnavailable(Exception):
    """Programs cannot be confined on this machine, so none is run; the message gives the reason."""


class Stopped(Exception):
    """The program was ended for passing a limit; the message names it."""


@dataclass(frozen=True)
class Limits:
    """What a program may take. `seconds` is by the clock and, of processor time, too."""

    seconds: float = 10.0
    memory_mb: int = 512
    """Address space, in MiB."""
    output_bytes: int = 64_000
    """Of standard output and standard error, each."""
    folder_mb: int = 16
    """Of its folder, in MiB, and of one file in it."""
    open_files: int = 64


@dataclass(frozen=True)
class Ended:
    """How a program ended by itself; status is negative where a signal did it (-24: processor time)."""

    status: int
    output: bytes
    errors: bytes


def interpreter_folders() -> tuple[str, ...]:
    """What this Python's interpreter and standard library read."""
    return tuple(dict.fromkeys((sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent))))


async def why_unavailable() -> str:
    """Why programs cannot be confined on this machine, or empty; found out by trying."""
    try:
        ended = await run([sys.executable, "-I", "-S", "-c", _PROBE], b"", Limits(), interpreter_folders())
    except (SandboxUnavailable, Stopped) as fault:
        return str(fault)
    return "" if ended.status == 0 else "a confined program could do what confinement excludes"


async def run(
    program: Sequence[str], given: bytes, limits: Limits, reads: Sequence[str] = (), lists: Sequence[str] = ()
) -> Ended:
    """Run the program with these bytes on standard input.

    It may read system libraries and the folders `reads`, and learn the names in the folders `lists`.
    Raises SandboxUnavailable before anything has run, Stopped where a limit ended it.
    """
    with tempfile.TemporaryDirectory(prefix="lorafleet-confined-", ignore_cleanup_errors=True) as folder:
        report, confirmed = os.pipe()
        try:
            process = await _start(program, limits, ([*_SYSTEM, *reads], list(lists)), folder, confirmed)
        finally:
            os.close(confirmed)
        try:
            await _confirm(report)
            return await _observe(process, given, limits, Path(folder))
        finally:
            os.close(report)
            _kill(process)
            await _ended(process)


async def _start(
    program: Sequence[str], limits: Limits, opened: tuple[list[str], list[str]], folder: str, confirmed: int
) -> asyncio.subprocess.Process:
    bounds = {
        "memory": limits.memory_mb << 20,
        "processor_seconds": int(limits.seconds) + 1,
        "file_bytes": limits.folder_mb << 20,
        "open_files": limits.open_files,
        "reads": opened[0],
        "lists": opened[1],
        "folder": folder,
        "report": confirmed,
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(_CONFINE), json.dumps(bounds), *program),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(folder),
        cwd=folder,
        pass_fds=(confirmed,),
        start_new_session=True,
    )


def _environment(folder: str) -> dict[str, str]:
    """None of the service's own: no credential is where an untrusted program runs."""
    found = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1"}
    found |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Where some machines have the interpreter's own library.
    return found | {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}


async def _confirm(report: int) -> None:
    """Wait until the process is confined. Raises SandboxUnavailable with the reason why it is not."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(report), "rb", buffering=0)
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            confirmed = await reader.read()
    except TimeoutError:
        raise SandboxUnavailable(f"the sandbox did not start within {_START_SECONDS:g} s") from None
    finally:
        transport.close()
    if confirmed != _CONFINED:
        raise SandboxUnavailable(confirmed.decode(errors="replace") or "the sandbox ended before it was confined")


async def _observe(process: asyncio.subprocess.Process, given: bytes, limits: Limits, folder: Path) -> Ended:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    watch = asyncio.create_task(_watch(folder, limits.folder_mb))
    streams = [
        asyncio.create_task(_read(process.stdout, limits.output_bytes)),
        asyncio.create_task(_read(process.stderr, limits.output_bytes)),
        asyncio.create_task(_write(process.stdin, given)),
    ]
    talk = asyncio.gather(*streams)
    try:
        async with asyncio.timeout(limits.seconds):
            await asyncio.wait((watch, talk), return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
            await talk
            output, errors = streams[0].result() or b"", streams[1].result() or b""
            status = await process.wait()
    except TimeoutError:
        raise Stopped(f"did not end within {limits.seconds:g} s") from None
    finally:
        # A gathering that failed leaves its other parts running, and a stream has one reader at a time.
        await tasks.end(watch, *streams)
        await asyncio.gather(talk, return_exceptions=True)
    return Ended(status, output, errors)


async def _read(stream: asyncio.StreamReader, most: int) -> bytes:
    got = b""
    while part := await stream.read(most + 1):
        got += part
        if len(got) > most:
            raise Stopped(f"printed more than {most} bytes")
    return got


async def _write(stream: asyncio.StreamWriter, given: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may end without reading all of it
        stream.write(given)
        await stream.drain()
    stream.close()


async def _watch(folder: Path, most_mb: int) -> None:
    """Raises Stopped once the folder holds too much. It is looked at twenty times a second, so a little more may be."""
    while True:
        sizes = [entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder) if _is_there(entry)]
        if len(sizes) > _MOST_FILES or sum(sizes) > most_mb << 20:
            raise Stopped(f"wrote more than {most_mb} MiB or {_MOST_FILES} files")
        await asyncio.sleep(_WATCH_SECONDS)


def _is_there(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Waits for a process that was killed. Its end is known only once its pipes are read to theirs."""
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(1 << 16):
            pass
    await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    """The whole group, although a confined process cannot have started another."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
