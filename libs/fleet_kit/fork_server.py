"""Imports modules once, then becomes other processes by forks: `python -m fleet_kit.fork_server MODULE...`.

Importing takes most of the start of a service or a training, and most of what they import is the same. A forked process
shares those pages with the others and runs a few hundredths of a second after it was requested. Linux alone: elsewhere
system libraries may start threads, which a fork does not survive.

Standard input is a socket of packets (SOCK_SEQPACKET). One packet requests one process: a JSON object with `arguments`
(module first) and `folder`, and five descriptors: its environment as JSON, its standard input, output and error, and a
pipe that gets its exit status as text. The answer is its process id. The environment comes in a file so that it never
is in this process's memory, from which every later process is a copy: they do not know one another's credentials.

At the end of standard input this process ends, and every process that it forked is killed with it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_DESCRIPTORS = 5
_PACKET_BYTES = 65536
_libc = ctypes.CDLL(None, use_errno=True)


def main(modules: list[str]) -> None:
    """Import the modules and serve requests until standard input ends; returns in each forked process to run it."""
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a forked process would write into every page that it shares
    request = _Server(socket.socket(fileno=os.dup(0))).serve()
    if request is None:
        os._exit(0)  # nothing to tidy up, and taking all modules down takes half a second
    gc.enable()
    _run(*request)


def _run(arguments: list[str], descriptors: list[int], parent: int) -> None:
    """Be that module, as `python -m` would run it."""
    environment, *standard, _ = descriptors
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    os.setsid()
    # What `top` shows (15 characters): the command line is the fork server's in every process.
    _libc.prctl(_PR_SET_NAME, arguments[0].removeprefix("services.").encode(), 0, 0, 0)
    for target, source in enumerate(standard):
        os.dup2(source, target)
    with os.fdopen(environment) as file:
        variables: dict[str, str] = json.load(file)
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(variables)
    found = importlib.util.find_spec(arguments[0])
    module = f"{arguments[0]}.__main__" if found and found.submodule_search_locations else arguments[0]
    sys.argv = list(arguments)
    sys.modules.pop(module, None)  # what it imported stays; the module itself runs again, as __main__
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class _Server:
    """Forks on request and reports exits.

    All of Python runs in one thread, which makes the forks safe; of what is imported, OpenBLAS and jemalloc have
    threads of their own and start them again in a forked process.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._awake, self._wake = socket.socketpair()
        self._statuses: dict[int, int] = {}
        """Process id → the pipe that gets its exit status."""

    def serve(self) -> tuple[list[str], list[int], int] | None:
        """In a forked process what it runs: arguments, descriptors, our process id; None here when the input ended."""
        for end in (self._awake, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._awake, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._awake in ready:
                    with suppress(BlockingIOError):
                        self._awake.recv(_PACKET_BYTES)
                    self._reap()
                if self._connection in ready:
                    packet, descriptors, _, _ = socket.recv_fds(self._connection, _PACKET_BYTES, _DESCRIPTORS)
                    if not packet:
                        return None
                    ours = os.getpid()
                    if self._fork(descriptors) == 0:
                        self._forget()
                        wanted = json.loads(packet)
                        os.chdir(wanted["folder"])
                        return wanted["arguments"], descriptors, ours

    def _fork(self, descriptors: list[int]) -> int:
        pid = os.fork()
        if pid:
            for descriptor in descriptors[:-1]:
                os.close(descriptor)
            self._statuses[pid] = descriptors[-1]
            self._connection.send(str(pid).encode())
        return pid

    def _forget(self) -> None:
        """In a forked process: nothing of the server's is open."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (self._connection, self._awake, self._wake):
            end.close()
        for descriptor in self._statuses.values():
            os.close(descriptor)
        self._statuses.clear()

    def _reap(self) -> None:
        while self._statuses:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            descriptor = self._statuses.pop(pid)
            with suppress(BrokenPipeError):  # nobody waits for it
                os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
