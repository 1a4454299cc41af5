"""Processes from a fork server, tried with real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fleet_cli.stack.process import Command, Supervised, started_at
from fleet_kit.forking import Forked, ForkServer, NoForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="services are forked on Linux alone")

PROGRAM = """
import json, os, sys, time
tell = {"arguments": sys.argv, "name": __name__, "variables": dict(os.environ), "group": os.getpgid(0),
        "folder": os.getcwd(), "parent": os.getppid(), "open": sorted(os.listdir("/proc/self/fd"))}
print(json.dumps(tell), flush=True)
if sys.argv[1:] == ["sleep"]:
    time.sleep(600)
sys.exit(int(sys.argv[1]))
"""


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has the module `forked_program`."""
    folder = tmp_path_factory.mktemp("forking")
    (folder / "forked_program.py").write_text(PROGRAM)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[ForkServer]:
    with ForkServer([], {**os.environ, "PYTHONPATH": str(folder)}, log=folder / "server.log") as server:
        yield server


def run(
    server: ForkServer, folder: Path, argument: str, variables: dict[str, str] | None = None
) -> tuple[Forked, Path]:
    output = folder / f"{argument}-{time.monotonic_ns()}.log"
    with output.open("wb") as file:
        forked = server.fork(
            ("forked_program", argument),
            variables or {"A": "1"},
            stdout=file.fileno(),
            stderr=file.fileno(),
            folder=folder,
        )
    return forked, output


def test_a_forked_module_runs_as_a_program_with_its_own_environment_and_exit_code(
    server: ForkServer, folder: Path
) -> None:
    forked, output = run(server, folder, "7", {"LORAFLEET_SECRET": "of the first"})
    assert forked.wait(10) == 7
    told = json.loads(output.read_text())
    assert told["variables"] == {"LORAFLEET_SECRET": "of the first"}
    assert (told["arguments"][1:], told["name"]) == (["7"], "__main__")
    assert told["group"] == forked.pid != os.getpgid(0)
    assert told["folder"] == str(folder)
    assert told["open"] == ["0", "1", "2", "3"]  # the fourth is the listing's own: nothing of the server's is open


def test_no_forked_process_has_what_an_earlier_one_was_given(server: ForkServer, folder: Path) -> None:
    secret = "7f3a-known-to-the-first-alone"
    first, _ = run(server, folder, "sleep", {"LORAFLEET_SECRET": secret})
    second, output = run(server, folder, "sleep", {"B": "2"})
    assert eventually(output.read_text)
    assert psutil.Process(second.pid).name() == "forked_program"
    assert secret.encode() in memory_of(first.pid)
    assert secret.encode() not in memory_of(second.pid)


def memory_of(pid: int) -> bytes:
    """The writable pages of a process."""
    pages = bytearray()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            extent, rights, *_ = line.split()
            start, end = (int(one, 16) for one in extent.split("-"))
            if rights.startswith("rw"):
                memory.seek(start)
                pages += memory.read(end - start)
    return bytes(pages)


def test_a_signal_that_ends_a_forked_process_is_its_exit_code(server: ForkServer, folder: Path) -> None:
    forked, _ = run(server, folder, "sleep")
    assert forked.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        forked.wait(0.05)
    os.kill(forked.pid, signal.SIGTERM)
    assert forked.wait(10) == forked.poll() == -signal.SIGTERM


def test_what_a_server_forked_dies_with_it(server: ForkServer, folder: Path) -> None:
    forked, output = run(server, folder, "sleep")
    assert eventually(output.read_text)
    os.kill(int(json.loads(output.read_text())["parent"]), signal.SIGKILL)
    assert forked.wait(10) == -signal.SIGKILL
    assert eventually(lambda: not started_at(forked.pid))
    with pytest.raises(NoForkServer):
        run(server, folder, "0")


def test_a_part_is_executed_when_its_fork_server_is_gone(server: ForkServer, folder: Path, tmp_path: Path) -> None:
    command = Command(
        (sys.executable, "-m", "forked_program", "sleep"),
        environment={"PYTHONPATH": str(folder)},
        folder=folder,
        fork_server=server,
    )
    part = Supervised("part", command, logs=tmp_path, run=tmp_path)
    part.start()
    forked = part.pid
    assert forked
    assert eventually(part.tail)
    server.close()
    assert eventually(lambda: part.pid not in (None, forked))
    assert part.exits == [-signal.SIGKILL]
    assert "imports for itself: its fork server has ended" in part.tail()
    part.stop()


def test_a_server_forked_from_another_has_its_imports(server: ForkServer, folder: Path) -> None:
    log = folder / "second.log"
    with ForkServer(["wave"], {"PYTHONPATH": str(folder)}, log=log, of=server) as second:
        forked, _ = run(second, folder, "3")
        assert forked.wait(20) == 3
    assert log.read_text() == ""
