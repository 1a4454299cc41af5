"""Child processes that run a Python module: a bare environment, a log, and no life beyond their supervisor's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from fleet_kit.forking import Forked, ForkServer, NoForkServer

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
    fork_server: ForkServer | None = None,
) -> AsyncIterator[Process | ForkedChild]:
    """Run `-m MODULE ARGUMENTS` with its standard output as a pipe; at the end it and all that it started are killed.

    Its standard input is a pipe that nothing is written to: its end shows the child that we are gone, see
    `parent_death`.

    Args:
        module: full name of the module.
        arguments: its command line.
        environment: all of it, see `bare_environment`.
        command: what runs `-m MODULE`: an interpreter, or a launcher of several.
        log: where its standard error is appended; None drops it.
        fork_server: what forks it instead of `command`.

    Raises:
        Crashed: `fork_server` has ended.
    """
    process: Process | ForkedChild
    with (log or Path(os.devnull)).open("ab") as errors:
        if fork_server is not None:
            try:
                process = await ForkedChild.start(fork_server, (module, *arguments), environment, errors.fileno())
            except NoForkServer as error:
                raise Crashed(-signal.SIGKILL, log_tail(log) if log else "") from error
        else:
            process = await asyncio.create_subprocess_exec(
                *command,
                "-m",
                module,
                *arguments,
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
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
        if isinstance(process, ForkedChild):
            process.close()


class ForkedChild:
    """A process that a fork server made: what is used of asyncio's `Process`."""

    def __init__(self, forked: Forked, stdin: int, stdout: asyncio.StreamReader, output: asyncio.ReadTransport) -> None:
        self.pid = forked.pid
        self.stdout: asyncio.StreamReader | None = stdout
        self._forked, self._stdin, self._output = forked, stdin, output

    @classmethod
    async def start(
        cls, server: ForkServer, arguments: Sequence[str], environment: Mapping[str, str], stderr: int
    ) -> Self:
        """Run a module; see `child`. Raises NoForkServer."""
        input_read, input_write = os.pipe()
        output_read, output_write = os.pipe()
        try:
            # Cancelled here, the process may begin all the same; at the end of its standard input it ends itself.
            forked = await asyncio.to_thread(
                server.fork, arguments, environment, stdin=input_read, stdout=output_write, stderr=stderr
            )
        except BaseException:
            os.close(input_write)
            os.close(output_read)
            raise
        finally:
            os.close(input_read)
            os.close(output_write)
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        output, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output_read, "rb")
        )
        return cls(forked, input_write, reader, output)

    @property
    def returncode(self) -> int | None:
        """Its exit code once it has ended; negative is a signal."""
        return self._forked.poll()

    async def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        return await asyncio.to_thread(self._forked.wait)

    def close(self) -> None:
        """Close our ends of its pipes."""
        os.close(self._stdin)
        self._output.close()


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
