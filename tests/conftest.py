"""Real servers for every test that needs one. Each worker of a run starts them once, on free ports.

`servers`         nats-server, PostgreSQL and the S3 gateway, without services
`fleet`           the whole fleet: the servers and all services
`base_model`      folder of SmolLM2-135M-Instruct; converted once and kept for later runs
`fresh_home`      a home folder that nobody has used
`service_env`     environment of a service on `servers`: a database of this module's own, an empty stream
`run_service`     starts one service as a process on `servers`
`jetstream`       JetStream of `servers`, as the bus's admin
`mint`, `admin_token`, `token_of`   bearer tokens that `servers`' services accept
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from xdist.scheduler import LoadScopeScheduling

from fleet_cli.stack import Fleet, embedding_model_path, prepare_base_model
from fleet_cli.stack.environment import service_environment
from fleet_cli.stack.ports import choose
from fleet_cli.stack.postgres import DATABASE
from fleet_cli.stack.schemas import clone_database, drop_database
from fleet_cli.stack.single import SingleService
from fleet_events.topology import DEAD_STREAM, STREAMS
from fleet_kit.provision import provision

# The same examples in every CI run: a property's new counterexample belongs on a desk, not in somebody's merge.
# How long an example takes to draw depends on what else the machine does, and is no property of the code.
settings.register_profile("default", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")

OF_THE_FLEET = ("tests/e2e/", "tests/integration/stack/test_whole_fleet.py", "tests/integration/cli/test_pipeline.py")
REPOSITORY = Path(__file__).resolve().parents[1]
# Converting the base model takes half a minute: kept over runs, shared by all homes that the tests make.
os.environ.setdefault("LORAFLEET_MODELS", str(REPOSITORY / ".lorafleet" / "models"))
os.environ["HF_HUB_OFFLINE"] = "1"

ServiceEnv = Callable[..., dict[str, str]]
Mint = Callable[..., str]


class Scheduling(LoadScopeScheduling):
    """One worker runs the tests of a file, which share its services, and one all files that share the whole fleet."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "fleet" if file.startswith(OF_THE_FLEET) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


@dataclass(frozen=True)
class RunningService:
    """A service process under test. `client` carries the admin token."""

    name: str
    url: str
    env: dict[str, str]
    client: httpx.AsyncClient
    single: SingleService
    mint: Mint

    async def kill(self) -> int:
        """`kill -9`; the supervisor starts it again. Returns the process id it had."""
        return await asyncio.to_thread(self.single.kill)

    async def crash(self) -> None:
        """`kill -9` and leave it dead, until `start`."""
        await asyncio.to_thread(self.single.crash)

    async def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        await asyncio.to_thread(self.single.stop)

    async def start(self) -> None:
        """Start it again and wait until it is ready."""
        await asyncio.to_thread(self.single.start)

    async def wait_ready(self, timeout: float = 90.0) -> None:
        """Wait until `/readyz` says 200."""
        await asyncio.to_thread(self.single.wait_ready, timeout)

    @property
    def log(self) -> str:
        """Everything it has logged so far."""
        return self.single.log


RunService = Callable[..., AbstractAsyncContextManager[RunningService]]


@pytest.fixture(scope="module", autouse=True)
def what_is_imported_is_never_collected() -> None:
    """A full collection reads a million objects of torch and transformers: half a second and more, every time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Where converted base models are kept."""
    return Path(os.environ["LORAFLEET_MODELS"])


@pytest.fixture(scope="session")
def base_model(models_folder: Path) -> Path:
    """Folder of the real base model."""
    return prepare_base_model(models_folder).path


@pytest.fixture(scope="session")
def embedding_model() -> Path:
    """Folder of all-MiniLM-L6-v2."""
    return embedding_model_path()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The three real servers, provisioned and migrated, without services."""
    with Fleet(tmp_path_factory.mktemp("servers") / "home") as stack:
        stack.start([])
        yield stack


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The whole fleet on its own servers. Tests share it: use a domain of your own."""
    with Fleet(tmp_path_factory.mktemp("fleet") / "home") as stack:
        stack.start()
        yield stack


@pytest.fixture
def fresh_home(tmp_path: Path) -> Path:
    """A home folder that nobody has used."""
    return tmp_path / "home"


@pytest.fixture(scope="module")
async def module_database(servers: Fleet) -> AsyncIterator[str]:
    """Name of a freshly migrated database that this test module alone uses; the stream is empty."""
    name = f"test_{secrets.token_hex(6)}"
    admin_url = servers.info.database_admin_url.replace(f"/{DATABASE}?", "/postgres?")
    await clone_database(admin_url, DATABASE, name)
    await empty_bus(servers)
    yield name
    await drop_database(admin_url, name)


async def empty_bus(servers: Fleet) -> None:
    """Make streams and durables anew. A purge would keep the memory of event ids, which then count as duplicates."""
    client = await servers.connect_nats("admin")
    try:
        js = client.jetstream()
        for stream in (*(one.name for one in STREAMS), DEAD_STREAM):
            try:
                await js.delete_stream(stream)
            except NotFoundError:
                continue
        await provision(js)
    finally:
        await client.close()


@pytest.fixture(scope="module")
def service_env(servers: Fleet, module_database: str) -> ServiceEnv:
    """`service_env("registry", LORAFLEET_LEASE_SECONDS="2")`: the environment of a service on `servers`."""

    def environment(name: str, **changes: str) -> dict[str, str]:
        ports = choose((name,), {})
        env = service_environment(
            name,
            servers.home,
            {**servers.ports, **ports},
            servers.credentials,
            embedding_model_path(),
            database=module_database,
        )
        return {**env, **changes}

    return environment


@pytest.fixture(scope="module")
def run_service(servers: Fleet, service_env: ServiceEnv, mint: Mint) -> RunService:
    """`async with run_service("registry") as registry:` a service process that is ready; ended on leaving.

    Keyword arguments are variables of its environment, for example LORAFLEET_INFERENCE_URL=other.url.
    """

    @asynccontextmanager
    async def run(name: str, *, ready: bool = True, **changes: str) -> AsyncIterator[RunningService]:
        env = service_env(name, **changes)
        forks = servers.forks.of(name)
        single = SingleService(name, env, logs=servers.home.logs, run=servers.home.run, fork_server=forks)
        headers = {"Authorization": f"Bearer {servers.info.token('admin')}"}
        try:
            if ready:
                await asyncio.to_thread(single.start)
            async with httpx.AsyncClient(base_url=single.url, headers=headers, timeout=60) as client:
                yield RunningService(name, single.url, env, client, single, mint)
        finally:
            await asyncio.to_thread(single.stop)

    return run


@pytest.fixture
async def jetstream(servers: Fleet) -> AsyncIterator[JetStreamContext]:
    """JetStream of `servers`, as admin: may publish and read everything."""
    client = await servers.connect_nats("admin")
    yield client.jetstream(timeout=5)
    await client.close()


@pytest.fixture(scope="session")
def mint(servers: Fleet) -> Mint:
    """`mint(["generate"], ["shop"])`: a token with these scopes and domains, accepted by services on `servers`."""

    def token(
        scopes: Iterable[str],
        domains: Iterable[str] = ("*",),
        subject: str = "test",
        ttl: timedelta = timedelta(hours=1),
    ) -> str:
        return servers.credentials.issuer.mint(subject, scopes, domains, ttl)

    return token


@pytest.fixture(scope="session")
def admin_token(servers: Fleet) -> str:
    """A token with every scope but `candidates`, in every domain."""
    return servers.info.token("admin")


@pytest.fixture(scope="session")
def token_of(servers: Fleet) -> Callable[[str], str]:
    """`token_of("evaluator")`: the token that this service carries itself."""
    return servers.info.token
