"""The vLLM servers of a base model: what each should hold, what each does hold, and which one answers a request."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from fleet_events.v1 import Adapter
from fleet_kit import tasks
from services.inference.errors import Busy
from services.inference.slots.states import LoadFailed, Proof
from services.inference.vllm.assignment import assign
from services.inference.vllm.client import Served, VllmClient
from services.inference.vllm.errors import Misconfigured, NotServed, Refused, ServerAway, VllmError

log = structlog.get_logger()
RETRY_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class Placed:
    """An adapter that servers should hold.

    Its name and its folder carry the artifact's digest, so that a name means the same weights for ever, on every server
    and over its restarts. vLLM keeps the attention cache of prompts under an adapter's name and path, and goes on using
    it when other weights come under the same ones (https://github.com/vllm-project/vllm/issues/42125).
    """

    adapter: Adapter
    folder: Path
    modules: int

    @property
    def name(self) -> str:
        return served_name(self.adapter)


@dataclass(eq=False, slots=True)
class Server:
    """One vLLM server, as of its last answer."""

    client: VllmClient
    healthy: bool = False
    fault: str = ""
    """Why it is not."""
    listed: frozenset[str] = frozenset()
    """Names that it reports of adapters from our folder."""
    strangers: frozenset[str] = frozenset()
    """Those of them that had no business there the last time."""
    proved: dict[str, Proof] = field(default_factory=dict)
    """Adapters whose effect it has shown, by name. It is called for nothing else."""
    running: int = 0
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def url(self) -> str:
        return self.client.url


Proves = Callable[[VllmClient, Placed], Awaitable[Proof]]


def served_name(adapter: Adapter) -> str:
    """What servers call it: `<adapter_id>@<first 12 digits of its digest>`."""
    return f"{adapter.adapter_id}@{adapter.artifact.blob.sha256[:12]}"


class VllmFleet:
    """Spreads adapters over servers, each on `copies` of them and proved there before it is called.

    `folder` is written and the servers are driven by this process alone: adapters of this folder that they report and
    that should not be there are unloaded. `most`: adapters a server holds. `every`: seconds between looks.
    `neutral`: the PEFT folder of an adapter of zeros, which is called in place of the base model.
    """

    def __init__(
        self,
        clients: Sequence[VllmClient],
        *,
        base_name: str,
        folder: Path,
        prove: Proves,
        copies: int,
        most: int,
        every: float,
        neutral: Path | None = None,
    ) -> None:
        self._servers = {client.url: Server(client) for client in clients}
        self._base_name = base_name
        self._folder = folder
        self._prove = prove
        self._copies = copies
        self._most = most
        self._every = every
        self._neutral = neutral
        self._wanted: dict[str, Placed] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Requests that servers are at."""
        return sum(server.running for server in self._servers.values())

    async def open(self) -> None:
        """Looks at the servers, and from then on keeps them as they should be.

        Adapter folders that none of them reports are left from another life and go.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        await self._look()
        listed = {name for server in self._servers.values() for name in server.listed}
        for folder in self._folder.iterdir():
            if folder.name not in listed and folder != self._neutral:
                shutil.rmtree(folder)
        self._loop = asyncio.create_task(self._reconcile())

    async def close(self) -> None:
        """Ends the connections; adapters stay where they are."""
        if self._loop is not None:
            await tasks.end(self._loop)
        await asyncio.gather(*(server.client.close() for server in self._servers.values()))

    async def put(self, placed: Placed) -> Proof:
        """Loads and proves an adapter on its servers; one that takes it is enough, the others are tried again.

        Raises:
            LoadFailed: vLLM refuses it, its effect cannot be shown, or no server answers. It is nowhere then.
        """
        self._wanted[placed.adapter.adapter_id] = placed
        try:
            return await self._settle(placed)
        except BaseException:
            await self.remove(placed.adapter.adapter_id)
            raise

    async def remove(self, adapter_id: str) -> None:
        """Unloads an adapter everywhere. A server that cannot be reached is cleared when it is back."""
        placed = self._wanted.pop(adapter_id, None)
        if placed is not None:
            await asyncio.gather(*(self._unload(server, placed.name) for server in self._healthy))
            await asyncio.to_thread(shutil.rmtree, placed.folder, ignore_errors=True)

    @asynccontextmanager
    async def serving(self, adapter_id: str | None, tried: Collection[Server]) -> AsyncIterator[tuple[Server, str]]:
        """The server to ask, of those not `tried`, and the name to ask for; None is the base model.

        Raises:
            ApiError: none can answer.
        """
        server, name = await self._pick(adapter_id, tried)
        server.running += 1
        try:
            yield server, name
        finally:
            server.running -= 1

    async def check(self, server: Server) -> None:
        """Reads what a server holds; one that does not answer as it should is out until it does."""
        before = set(server.proved)
        try:
            served = await server.client.models()
            if self._base_name not in {one.id for one in served if one.parent is None}:
                raise Misconfigured(f"it serves no {self._base_name!r}: see --served-model-name")
            await self._neutralise(server, served)
        except VllmError as error:
            if server.healthy:
                self._changed.set()
            if server.healthy or server.fault != str(error):
                log.warning("vllm_server_lost", server=server.url, reason=str(error))
            server.healthy, server.fault, server.listed = False, str(error), frozenset()
            server.proved.clear()
            return
        if not server.healthy:
            log.info("vllm_server_found", server=server.url, models=len(served))
        server.healthy = True
        server.listed = frozenset(one.id for one in served if one.root == str(self._folder / one.id)) - self._own
        # It was restarted, or another client unloaded them.
        for name in before - server.listed:
            server.proved.pop(name, None)

    @property
    def _own(self) -> set[str]:
        return {self._neutral.name} if self._neutral else set()

    async def _neutralise(self, server: Server, served: Sequence[Served]) -> None:
        """Loads the adapter of zeros where it is not."""
        if self._neutral is None or self._neutral.name in {one.id for one in served}:
            return
        async with server.moving:
            # Another look may have been faster.
            if self._neutral.name not in {one.id for one in await server.client.models()}:
                await server.client.load(self._neutral.name, self._neutral)

    @property
    def _healthy(self) -> list[Server]:
        return [server for server in self._servers.values() if server.healthy]

    def _homes(self) -> dict[str, list[Server]]:
        """Name of every adapter → the servers that should hold it."""
        names = [placed.name for placed in self._wanted.values()]
        urls = [server.url for server in self._healthy]
        homes = assign(names, urls, copies=self._copies, most=self._most)
        return {name: [self._servers[url] for url in urls] for name, urls in homes.items()}

    async def _reconcile(self) -> None:
        while True:
            try:
                self._changed.clear()
                await self._look()
                await asyncio.gather(*(self._fill(server) for server in self._healthy))
                await asyncio.gather(*(self._clear(server) for server in self._healthy))
            except Exception:  # one bad round must not be the last: servers would stay empty after a restart
                log.exception("vllm_reconcile_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._changed.wait()

    async def _look(self) -> None:
        await asyncio.gather(*(self.check(server) for server in self._servers.values()))

    async def _fill(self, server: Server) -> None:
        homes = self._homes()
        for placed in list(self._wanted.values()):
            if server in homes.get(placed.name, ()) and placed.name not in server.proved:
                try:
                    await self._load(server, placed)
                except (LoadFailed, VllmError) as error:
                    log.warning("vllm_reload_failed", server=server.url, adapter=placed.name, reason=str(error))

    async def _clear(self, server: Server) -> None:
        """Unloads what should not be there; twice seen, so that what is just being loaded is no stranger."""
        homes = self._homes()
        waited_for = {name for name, at in homes.items() if not all(name in home.proved for home in at)}
        strangers = {name for name in server.listed if server not in homes.get(name, ())} - waited_for
        for name in strangers & server.strangers:
            log.info("vllm_stranger_unloaded", server=server.url, adapter=name)
            await self._unload(server, name)
            if name not in homes:
                await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)
        server.strangers = frozenset(strangers)

    async def _settle(self, placed: Placed) -> Proof:
        """Loads an adapter where it should be, whichever servers are lost over it."""
        while homes := self._homes().get(placed.name):
            results = await asyncio.gather(*(self._load(home, placed) for home in homes), return_exceptions=True)
            for result in results:
                if isinstance(result, Proof):
                    return result
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, ServerAway):
                    raise result
            await asyncio.gather(*(self.check(home) for home in homes))
            if all(home.healthy for home in homes):
                raise LoadFailed("backend_unavailable", str(results[0]), transient=True)
        raise LoadFailed("backend_unavailable", "none of its vLLM servers can be reached", transient=True)

    async def _load(self, server: Server, placed: Placed) -> Proof:
        """Loads and proves an adapter on one server, unless that is done. Raises LoadFailed, ServerAway."""
        name, client = placed.name, server.client
        async with server.moving:
            if name in server.proved:
                return server.proved[name]
            if self._wanted.get(placed.adapter.adapter_id) is not placed:
                raise LoadFailed("withdrawn", "it was unloaded meanwhile", transient=True)
            try:
                present = next((one for one in await client.models() if one.id == name), None)
                if present is not None and present.root != str(placed.folder):
                    await client.unload(name)
                    present = None
                if present is None:
                    await client.load(name, placed.folder)
                server.proved[name] = await self._prove(client, placed)
            except (LoadFailed, Refused) as error:
                with contextlib.suppress(VllmError):
                    await client.unload(name)
                if isinstance(error, LoadFailed):
                    raise
                raise LoadFailed("artifact_invalid", str(error)) from error
            except NotServed as error:
                raise ServerAway(f"it lost {name!r} right after it was loaded") from error
            except Misconfigured as error:
                raise LoadFailed("backend_misconfigured", str(error), transient=True) from error
            return server.proved[name]

    async def _unload(self, server: Server, name: str) -> None:
        async with server.moving:
            server.proved.pop(name, None)
            try:
                await server.client.unload(name)
            except VllmError as error:
                log.warning("vllm_unload_failed", server=server.url, adapter=name, reason=str(error))

    async def _pick(self, adapter_id: str | None, tried: Collection[Server]) -> tuple[Server, str]:
        placed = self._wanted[adapter_id] if adapter_id else None
        name = placed.name if placed else (self._neutral.name if self._neutral else self._base_name)

        def able() -> list[Server]:
            return [one for one in self._healthy if one not in tried and (not placed or name in one.proved)]

        if placed is not None and adapter_id is not None and not able():
            try:
                await self._settle(placed)
            except LoadFailed as failure:
                raise failure.to_api(adapter_id, RETRY_AFTER) from failure
        if not (servers := able()):
            raise Busy(
                "no vLLM server can answer this now; try again.", code="backend_unavailable", retry_after=RETRY_AFTER
            )
        return min(servers, key=lambda server: server.running), name
