"""Child processes that run a Python module: a bare environment, a log, and no life beyond their supervisor's."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

_LINE_LIMIT = 4 * 1024 * 1024
_TAIL_BYTES = 2000
# Nothing else of our environment reaches a child: it needs no credentials.
_PASSED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


class Crashed(Exception):
    """A child ended without a result: killed, out of memory, or a defect. Subclasses name it in `what`."""

    what = "process"

    def __init__(self, status: int, tail: str) -> None:
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        super().__init__(f"the {self.what} {how}: {tail or 'no output'}")
        self.status = status


@contextlib.asynccontextmanager
async def child(
    module: str,
    *arguments: str,
    environment: Mapping[str, str],
    command: Sequence[str] = (sys.executable,),
    log: Path | None = None,
) -> AsyncIterator[Process]:
    """Run `-m MODULE ARGUMENTS` with its standard output as a pipe; at the end it and all that it started are killed.

    Its standard input is a pipe that nothing is written to: its end shows the child that we are gone, see
    `parent_death`.

    Args:
        module: full name of the module.
        arguments: its command line.
        environment: all of it, see `bare_environment`.
        command: what runs `-m MODULE`: an interpreter, or a launcher of several.
        log: where its standard error is appended; None drops it.
    """
    with contextlib.ExitStack() as files:
        process = await asyncio.create_subprocess_exec(
            *command,
            "-m",
            module,
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=files.enter_context(log.open("ab")) if log else DEVNULL,
            env=environment,
            limit=_LINE_LIMIT,
            start_new_session=True,  # a group of its own: what it starts is killed with it
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())


def bare_environment(*passed: str, **given: str) -> dict[str, str]:
    """The environment of a child: our import path, what every program needs, the variables `passed`, and `given`."""
    named = {name: os.environ[name] for name in (*_PASSED, *passed) if name in os.environ}
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "PYTHONUNBUFFERED": "1"}
    return named | path | given


def log_tail(log: Path) -> str:
    """The last 2,000 bytes of a child's log, as text."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").strip()
