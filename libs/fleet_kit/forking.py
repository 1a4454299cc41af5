"""Processes that a fork server makes: it has imported their modules already, see `fleet_kit.fork_server`."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

_PACKET_BYTES = 64


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class NoForkServer(Exception):
    """The fork server has ended."""


class ForkServer:
    """Forks processes on request, from any thread. They live no longer than it, and it no longer than this process."""

    def __init__(
        self, modules: Sequence[str], environment: Mapping[str, str], *, log: Path, of: ForkServer | None = None
    ) -> None:
        """Start it and return at once; its imports take place in the background.

        Args:
            modules: what it imports before it serves.
            environment: all that those imports and the system's loader find.
            log: where its errors are appended.
            of: a fork server from which it is forked, whose imports it then has.

        Raises:
            NoForkServer: `of` has ended.
        """
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        module = ("fleet_kit.fork_server", *modules)
        self._process: subprocess.Popen[bytes] | Forked
        with theirs, open(log, "ab", opener=_private) as output:
            if of is not None:
                self._process = of.fork(
                    module, environment, stdout=output.fileno(), stderr=output.fileno(), stdin=theirs.fileno()
                )
                return
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=dict(environment),
                stdin=theirs.fileno(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def fork(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdout: int,
        stderr: int,
        stdin: int | None = None,
        folder: Path | None = None,
    ) -> Forked:
        """Run a module as `python -m` does; waits until the server has imported what it was given.

        Args:
            arguments: the module's name, then its command line.
            environment: all of it.
            stdout: descriptor for its standard output; stays the caller's, as the others do.
            stderr: for its standard error.
            stdin: for its standard input; None is the empty device.
            folder: where it runs; here when None.

        Raises:
            NoForkServer: it has ended.
        """
        wanted = {"arguments": list(arguments), "folder": str(folder or Path.cwd())}
        read_end, write_end = os.pipe()
        with open(os.devnull, "rb") as nothing, os.fdopen(os.memfd_create("environment"), "w+b") as variables:
            variables.write(json.dumps(dict(environment)).encode())
            variables.seek(0)
            source = nothing.fileno() if stdin is None else stdin
            try:
                with self._lock:
                    packet = json.dumps(wanted).encode()
                    socket.send_fds(self._socket, [packet], [variables.fileno(), source, stdout, stderr, write_end])
                    answer = self._socket.recv(_PACKET_BYTES)
            except OSError as error:
                os.close(read_end)
                raise NoForkServer(str(error)) from error
            finally:
                os.close(write_end)
        if not answer:
            os.close(read_end)
            raise NoForkServer("it ended before it answered")
        return Forked(int(answer), read_end)

    @property
    def pid(self) -> int:
        """Its process id, which is the parent of what it forks."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it can still fork."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and all that it forked."""
        self._socket.close()
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Forked:
    """A process that a fork server made: what is used of `subprocess.Popen`."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self._status: int | None = status
        self._lock = threading.Lock()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code once it has ended; negative is a signal."""
        return self._read(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs on after `timeout` seconds.
        """
        code = self._read(None if timeout is None else timeout * 1000)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def _read(self, milliseconds: float | None) -> int | None:
        if self._status is not None:
            poller = select.poll()
            poller.register(self._status, select.POLLIN)
            if not poller.poll(milliseconds):
                return None
        with self._lock:
            if self._status is not None:
                # The pipe ends without a status when the fork server is gone, which kills what it forked.
                self.returncode = int(os.read(self._status, _PACKET_BYTES) or -signal.SIGKILL)
                os.close(self._status)
                self._status = None
        return self.returncode
