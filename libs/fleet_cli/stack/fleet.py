"""The embedded stack: three servers and six services as processes of this machine, started and stopped together."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from minio.error import S3Error
from nats.aio.client import Client
from urllib3.exceptions import HTTPError

from fleet_cli.stack.bus import ErrorCallback, bus_command, connect_bus, provision_bus
from fleet_cli.stack.bus_watch import BusWatch
from fleet_cli.stack.credentials import Credentials, load_or_create
from fleet_cli.stack.environment import FleetInfo, describe, ports_before, write_fleet_file
from fleet_cli.stack.errors import PartFailed, StackError
from fleet_cli.stack.home import Home, default_home
from fleet_cli.stack.models import BaseModel, embedding_model_path, prepare_base_model
from fleet_cli.stack.objects import PORTS as S3_PORTS
from fleet_cli.stack.objects import make_bucket, objects_command, remove_sockets
from fleet_cli.stack.ports import choose, release
from fleet_cli.stack.postgres import postgres_command
from fleet_cli.stack.process import Command, Supervised, end_left_over, together
from fleet_cli.stack.readiness import readiness
from fleet_cli.stack.schemas import migrate_service, provision_database
from fleet_cli.stack.service_forks import WITH_TORCH, ServiceForks
from fleet_events.topology import SERVICES, STORING
from fleet_kit.drift import Drift

SERVERS = ("nats", "postgres", "s3")
NEEDS_BASE_MODEL = frozenset({"registry", "trainer", "inference"})


class Fleet:
    """One fleet on this machine. All of it lies below one home folder and listens on loopback only.

    `start` returns when everything requested is ready. The parts live until `stop`, or until this process dies.
    Methods block; call them in a thread from async code where that matters.
    """

    def __init__(self, home: Path | None = None, *, tls: bool = False) -> None:
        """With `tls`, HTTP, NATS and S3 are served over TLS with an authority of the home's own.

        PostgreSQL stays plain, on loopback with passwords: the build that the package brings has no TLS.
        """
        self._folder = home or default_home()
        self._tls = tls
        self._parts: dict[str, Supervised] = {}
        self._lock: IO[str] | None = None
        self._home: Home | None = None
        self._ports: dict[str, int] = {}
        self._credentials: Credentials | None = None
        self._info: FleetInfo | None = None
        self._giving_up = threading.Event()
        self._forks: ServiceForks | None = None
        self.bus_watch: BusWatch | None = None
        """Restarts a bus that stores nothing; None while the fleet is not started."""
        self.drift: list[Drift] = []
        """Where streams and durables of an earlier start differ from the current topology table."""
        self.timings: dict[str, float] = {}
        """Seconds from the beginning of `start` until each step was done."""

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self, services: Sequence[str] = SERVICES, *, timeout: float = 180.0) -> FleetInfo:
        """Start the servers, prepare them, start these services and wait until they are ready.

        Raises:
            AlreadyRunning: another process runs a stack in this home.
            PartFailed: a part did not come up in `timeout` seconds; everything is stopped again.
        """
        unknown = sorted(set(services) - set(SERVICES))
        if unknown:
            raise StackError(f"unknown service {unknown[0]!r}; known are {', '.join(SERVICES)}")
        if self._lock is not None:
            raise StackError("this fleet is started already")
        began = time.monotonic()
        self._giving_up.clear()
        self._home = home = Home.open(self._folder)
        self._lock = home.lock()
        try:
            self._bring_up(home, tuple(services), began, timeout)
        except BaseException:
            self.stop()
            raise
        return self.info

    def stop(self) -> None:
        """Stop everything in order: the services together, then the servers together. Does nothing twice."""
        if self.bus_watch is not None:
            self.bus_watch.stop()
            self.bus_watch = None
        together([self._parts[name].stop for name in SERVICES if name in self._parts])
        together([self._parts[name].stop for name in SERVERS if name in self._parts])
        if self._forks is not None:
            self._forks.close()
            self._forks = None
        if self._ports:
            remove_sockets(self._ports)
        self._parts.clear()
        if self._lock is not None:
            release(self._ports.values())
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def serve(self, services: Sequence[str] = SERVICES, *, ready: Callable[[FleetInfo], None] | None = None) -> None:
        """Start, call `ready`, block until SIGINT or SIGTERM, then stop everything in order.

        For the main thread of a program that is the stack. A signal during the start ends it in the same way.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
        try:
            info = self.start(services)
            if ready is not None:
                ready(info)
            threading.Event().wait()
        except KeyboardInterrupt:
            for number in numbers:  # an impatient second Ctrl-C must not cut the orderly end short
                signal.signal(number, signal.SIG_IGN)
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- parts --------------------------------------------------------------------------------------------------

    @property
    def info(self) -> FleetInfo:
        """Addresses and credentials. Raises StackError before `start`."""
        if self._info is None:
            raise StackError("the fleet is not started")
        return self._info

    @property
    def home(self) -> Home:
        """Its folders. Raises StackError before `start`."""
        if self._home is None:
            raise StackError("the fleet is not started")
        return self._home

    @property
    def credentials(self) -> Credentials:
        """Its keys. Raises StackError before `start`."""
        if self._credentials is None:
            raise StackError("the fleet is not started")
        return self._credentials

    @property
    def forks(self) -> ServiceForks:
        """What its services start from."""
        if self._forks is None:
            self._forks = ServiceForks(self.home.logs)
        return self._forks

    @property
    def ports(self) -> dict[str, int]:
        """Port of each part; the same as long as this object lives."""
        return dict(self._ports)

    def part(self, name: str) -> Supervised:
        """The process of a server or service. Raises StackError for one that was not started."""
        if name not in self._parts:
            running = f"expected one of {', '.join(self._parts)}" if self._parts else "no part is running"
            raise StackError(f"unknown part {name!r}; {running}")
        return self._parts[name]

    def kill(self, name: str) -> int:
        """`kill -9` a part, as a crash would; it is started again by itself. Returns the process id it had."""
        return self.part(name).kill()

    def restart(self, name: str, *, timeout: float = 60.0) -> None:
        """Stop a part properly, start it and wait until it is ready."""
        self.stop_part(name)
        self.start_part(name, timeout=timeout)

    def stop_part(self, name: str) -> None:
        """Stop a part and leave it stopped."""
        self.part(name).stop()

    def start_part(self, name: str, *, timeout: float = 60.0) -> None:
        """Start a stopped part, at the same address, and wait until it is ready."""
        part = self.part(name)
        if name == "postgres":
            part.command = postgres_command(self.home, self._ports["postgres"], self.credentials.postgres["postgres"])
        part.start()
        self._wait(name, time.monotonic() + timeout)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until every part is ready. Raises PartFailed with the log's end of the one that is not."""
        deadline = time.monotonic() + timeout
        for name in tuple(self._parts):
            self._wait(name, deadline)

    async def connect_nats(self, user: str, error_cb: ErrorCallback | None = None) -> Client:
        """A connection to the bus as one of its users; the caller closes it."""
        seed = self.credentials.nats_seeds[user]
        return await connect_bus(self._ports["nats"], user, seed, error_cb, self.credentials.certificates)

    # -- how ----------------------------------------------------------------------------------------------------

    def _bring_up(self, home: Home, services: tuple[str, ...], began: float, timeout: float) -> None:
        deadline = began + timeout

        def done(step: str) -> None:
            self.timings[step] = round(time.monotonic() - began, 2)

        end_left_over(home.run)
        self._credentials = credentials = load_or_create(home, tls=self._tls)
        certificates = credentials.certificates
        before = ports_before(home)
        remove_sockets({name: before.get(name, 0) for name in S3_PORTS})
        self._ports = ports = choose(("nats", "nats_monitor", "postgres", *S3_PORTS, *SERVICES), self._ports or before)
        embedding_model = embedding_model_path()
        done("keys")

        # initdb takes a second, so its thread goes first; a part is spawned by a thread of its own.
        def postgres() -> None:
            self._add("postgres", postgres_command(home, ports["postgres"], credentials.postgres["postgres"])).start()
            self._wait("postgres", deadline)
            asyncio.run(provision_database(ports["postgres"], credentials.postgres))
            together(partial(migrate_service, name, ports["postgres"], credentials.postgres) for name in STORING)
            done("postgres")

        def s3() -> None:
            self._wait("s3", deadline)
            self._until_it_works(
                lambda: make_bucket(ports["s3"], credentials.s3["admin"], certificates), deadline, "s3"
            )
            done("s3")

        def bus() -> None:
            self._wait("nats", deadline)
            self.drift = asyncio.run(provision_bus(ports["nats"], credentials.nats_seeds["admin"], certificates))
            done("nats")

        def base_model() -> BaseModel:
            found = prepare_base_model(home.models)
            done("base_model")
            return found

        # Most of a service's start is imports: they go on while the servers start.
        self.forks.prepare(*services[:1])
        self._add("s3", objects_command(home, ports, credentials)).start()
        self._add("nats", bus_command(home, ports, credentials)).start()
        with ThreadPoolExecutor(5, thread_name_prefix="stack-start") as pool, self._interruptible():
            servers: list[Future[None]] = [pool.submit(step) for step in (postgres, s3, bus)]
            needs_model = any(name in NEEDS_BASE_MODEL for name in services)
            model = pool.submit(base_model) if needs_model else None
            imports = pool.submit(self.forks.prepare, *services)
            pending: list[Future[Any]] = [*servers, imports, *([model] if model else [])]
            for future in as_completed(pending):
                future.result()  # the first failure ends the start
            found = model.result() if model is not None else None
        self._info = describe(home, ports, credentials, services, base_model=found, embedding_model=embedding_model)
        write_fleet_file(home, self._info, ports)
        for name in sorted(services, key=WITH_TORCH.__contains__):  # those whose imports take longer start last
            env = self._info.services[name].env
            arguments = (sys.executable, "-m", f"services.{name}.app")
            self._add(name, Command(arguments, environment=env, fork_server=self.forks.of(name))).start()
        for name in services:
            self._wait(name, deadline)
            done(name)
        self.bus_watch = BusWatch(self._parts["nats"], ports["nats_monitor"], home.nats / "jetstream")
        self.bus_watch.start()
        done("all")

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Lets the threads of a start end soon when it fails or Ctrl-C is pressed; the pool waits for them."""
        try:
            yield
        except BaseException:
            self._giving_up.set()
            raise

    def _add(self, name: str, command: Command) -> Supervised:
        part = Supervised(name, command, logs=self.home.logs, run=self.home.run)
        self._parts[name] = part
        return part

    def _wait(self, name: str, deadline: float) -> None:
        part = self.part(name)
        missing = readiness(name, self.home, self._ports[name], self.credentials.certificates)
        while reason := missing():
            if self._giving_up.is_set():
                raise PartFailed(f"{name} was not waited for: the start was given up")
            if len(part.exits) >= 3:
                raise PartFailed(f"{name} crashed {len(part.exits)} times; the end of {part.log}:\n{part.tail()}")
            if time.monotonic() > deadline:
                raise PartFailed(f"{name} is not ready ({reason}); the end of {part.log}:\n{part.tail()}")
            time.sleep(0.05)

    def _until_it_works(self, step: Callable[[], None], deadline: float, name: str) -> None:
        """Repeat a step of a server that has opened its port but may not be able to answer yet."""
        while True:
            try:
                return step()
            except (S3Error, HTTPError, OSError) as error:
                if self._giving_up.is_set() or time.monotonic() > deadline:
                    raise PartFailed(f"{name} does not work: {error}; its log is {self.part(name).log}") from error
                time.sleep(0.1)
