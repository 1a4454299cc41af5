"""A fleet whose services are replaced one after another while they are used."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet_cli.stack.home import Home
from fleet_cli.stack.ports import choose
from fleet_cli.stack.service_forks import ServiceForks
from fleet_cli.stack.single import SingleService
from fleet_events.topology import CONSOLE, SERVICES

REPOSITORY = Path(__file__).resolve().parents[2]

_SERVERS = """
import json, sys
from pathlib import Path
import fleet_cli
from fleet_cli.stack import Fleet, embedding_model_path
from fleet_cli.stack.environment import service_environment
from fleet_events.topology import SERVICES
with Fleet(Path(sys.argv[1])) as fleet:
    fleet.start(())
    made = (fleet.home, fleet.ports, fleet.credentials, embedding_model_path())
    print(json.dumps({
        "code": fleet_cli.__file__,
        "ports": fleet.ports,
        "database": fleet.info.database_admin_url,
        "environments": {name: service_environment(name, *made) for name in SERVICES},
    }), flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Release:
    """An earlier commit, installed: its own code, and the packages of this environment."""

    commit: str
    interpreter: Path

    @classmethod
    def of(cls, reference: str, folder: Path) -> Release:
        """Build the wheel of a commit and install it into an environment of its own."""
        commit = _output("git", "rev-parse", "--short", reference)
        source, environment = folder / "source", folder / "environment"
        source.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x"], cwd=source, input=archive, check=True)
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
        subprocess.run(build, cwd=source, check=True, capture_output=True)
        (wheel,) = folder.glob("*.whl")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        interpreter = environment / "bin" / "python"
        install = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(interpreter),
            "install",
            "--quiet",
            "--no-deps",
            str(wheel),
        ]
        subprocess.run(install, check=True)
        (installed,) = environment.glob("lib/python*/site-packages")
        (installed / "packages.pth").write_text(sysconfig.get_paths()["purelib"])
        return cls(commit, interpreter)


def before_newest_migration() -> str:
    """The commit before the newest one that changed a schema."""
    folders = ("libs/fleet_kit/migrations", *(str(one) for one in Path("services").glob("*/migrations")))
    return _output("git", "log", "-1", "--no-merges", "--format=%H", "--", *folders) + "^"


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def servers_of(release: Release, home: Path) -> Iterator[dict[str, Any]]:
    """The three servers, prepared by a release: keys, streams, schemas, and what its services find in their environment."""
    process = subprocess.Popen(
        [str(release.interpreter), "-c", _SERVERS, str(home)],
        cwd=home.parent,
        env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        described: dict[str, Any] = json.loads(process.stdout.readline())
        assert str(release.interpreter.parents[1]) in described["code"]
        yield described
    finally:
        process.stdin.close()
        process.wait(60)


@dataclass
class Address:
    """One port for the replicas of a service, as a Service of Kubernetes is: each connection goes to one of them.

    Connections stay where they are when their replica leaves the list.
    """

    port: int
    replicas: list[int] = field(default_factory=list)
    _turn: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._connect, "127.0.0.1", self.port):
            yield

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            replica = self.replicas[next(self._turn) % len(self.replicas)]
            theirs, to_them = await asyncio.open_connection("127.0.0.1", replica)
            await asyncio.gather(_pass_on(reader, to_them), _pass_on(theirs, writer))
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    finally:
        writer.close()


@dataclass
class Deployment:
    """The replicas of one service behind its address."""

    name: str
    address: Address
    home: Home
    common: dict[str, str]
    forks: ServiceForks
    """What replicas of this tree start from."""
    running: list[SingleService] = field(default_factory=list)

    async def add(self, environment: dict[str, str], interpreter: Path | None) -> None:
        """Start a replica, of this tree without an interpreter, and give it requests once it is ready."""
        port = choose((self.name,), {})[self.name]
        own = self.home.cache / f"{self.name}-{port}"
        own.mkdir(parents=True)
        env = environment | self.common | {"LORAFLEET_PORT": str(port), "LORAFLEET_CACHE_DIR": str(own)}
        if self.name == "inference":
            env |= {"LORAFLEET_REPLICA": f"inference-{port}", "LORAFLEET_REPLICA_URL": f"http://127.0.0.1:{port}"}
        forked_from = None if interpreter else await asyncio.to_thread(self.forks.of, self.name)
        folders = {"logs": self.home.logs, "run": self.home.run}
        replica = SingleService(self.name, env, **folders, fork_server=forked_from, interpreter=interpreter)
        self.running.append(replica)
        await asyncio.to_thread(replica.start)
        self.address.replicas.append(port)

    async def remove_oldest(self) -> None:
        """Give the oldest replica no further connections, then stop it."""
        replica = self.running.pop(0)
        self.address.replicas.pop(0)
        await asyncio.to_thread(replica.stop)

    async def stop(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(one.stop) for one in self.running))


USED = tuple(name for name in SERVICES if name != CONSOLE)
"""Those that an upgrade may take from under somebody's work. The console keeps nothing, and earlier releases had none."""


@asynccontextmanager
async def at_addresses(ports: dict[str, int]) -> AsyncIterator[dict[str, Address]]:
    addresses = {name: Address(ports[name]) for name in USED}
    async with AsyncExitStack() as stack:
        for one in addresses.values():
            await stack.enter_async_context(one.open())
        yield addresses
