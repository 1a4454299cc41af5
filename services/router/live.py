"""The index that answers: in memory, in step with PostgreSQL, which notifies of commits (LISTEN)."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn, ParamSpec, TypeVar

import asyncpg
import numpy as np
import structlog

from fleet_kit.db import Connection, Pool, keeps_session
from services.router import correction_store, store
from services.router.calibration import Calibration, Level, Threshold
from services.router.decision import Candidate
from services.router.evidence import Evidence, Kind, Vectors
from services.router.search import SearchIndex, Wanted
from services.router.store import LiveRoute

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

ROUTES, TAUGHT = "route", "taught"
"""Channels: a family that changed, a domain that was taught something."""
AGAIN_AFTER = 1.0
NEAREST = 2
"""Adapters that are found however far they are: what came nearest, and its margin."""

TOGETHER = 8
"""Searches that are made together."""
AT_A_TIME = 100
"""Families that are read at once: a rebuild changes all of them."""


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate with what is known of its adapter."""

    candidate: Candidate
    route: LiveRoute
    evidence: Kind
    calibrated_on: int
    share_not_nearer: float | None


@dataclass(frozen=True, slots=True)
class Known:
    """What an adapter is recognised by; the vectors themselves are in the search index."""

    kind: Kind
    vectors: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A live adapter, what it is recognised by, and from which similarity on; None where nothing is known of it."""

    route: LiveRoute
    known: Known | None
    threshold: Threshold | None


class LiveIndex:
    """Live adapters by what one embedding model makes of them.

    One thread searches and changes it, so that the event loop answers other requests during a search.
    """

    def __init__(self, dimension: int, embedded_by: str, level: Level, threads: int = 1) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="routing-index")
        self._waiting: deque[tuple[Wanted, Future[list[Found]]]] = deque()
        self._search = SearchIndex(dimension, threads)
        self._embedded_by = embedded_by
        self._level = level
        self._routes: dict[str, LiveRoute] = {}
        self._known: dict[str, Known] = {}
        self._taught: dict[str, dict[str, list[Vectors]]] = {}
        self._refused: dict[str, Vectors] = {}
        self._calibration = Calibration(level)
        self._drop: float | None = None

    def close(self) -> None:
        """End the thread after the search that it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def routes(self) -> list[Listed]:
        """Live adapters by id, those that nothing is known of included."""
        return await self._in_thread(self._listed)

    def _listed(self) -> list[Listed]:
        found = [
            Listed(
                route, self._known.get(family), self._calibration.threshold(family) if family in self._known else None
            )
            for family, route in self._routes.items()
        ]
        return sorted(found, key=lambda one: one.route.adapter_id)

    async def lacking(self) -> bool:
        """Whether a live adapter has texts and no vectors: one that another replica indexed with its own model."""
        return await self._in_thread(self._lacks)

    def _lacks(self) -> bool:
        return any(one.texts and family not in self._known for family, one in self._routes.items())

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(*args, **kwargs))

    async def find(
        self, queries: Vectors, weights: Vectors, domains: Collection[str] | None, threshold: float | None = None
    ) -> list[Found]:
        """The adapters of these domains (None: of all) at or above their thresholds, and the two nearest in any case.

        queries: the parts of one query, [parts, dimension]; weights: [parts], what the similarity of each counts.
        threshold: holds for every adapter in place of its own, and of what was taught no refusal counts.
        """
        found: Future[list[Found]] = Future()
        self._waiting.append((Wanted(queries, weights, NEAREST, threshold, domains), found))
        self._thread.submit(self._search_waiting)
        return await asyncio.wrap_future(found)

    def _search_waiting(self) -> None:
        """Search for those that came while the thread was busy together; one that came alone waits for nobody."""
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))]
        wanted = [(one, found) for one, found in taken if found.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            ranked = self._search.near_each([one for one, _ in wanted])
            answers = [self._of(near, one) for near, (one, _) in zip(ranked, wanted, strict=True)]
        except BaseException as error:
            for _, found in wanted:
                found.set_exception(error)
            return
        for answer, (_, found) in zip(answers, wanted, strict=True):
            found.set_result(answer)

    def _of(self, ranked: Sequence[tuple[str, float]], wanted: Wanted) -> list[Found]:
        near = [(score, self._routes[family]) for family, score in ranked]
        refused = {} if wanted.floor is not None else self._nearest_refused(wanted.queries, wanted.weights)
        return [self._found(route, score, refused.get(route.domain, -1.0), wanted.floor) for score, route in near]

    def _nearest_refused(self, queries: Vectors, weights: Vectors) -> dict[str, float]:
        return {
            domain: float((queries @ vectors.T * weights[:, None]).max()) for domain, vectors in self._refused.items()
        }

    async def load(self, connection: Connection, families: Collection[str] | None = None) -> None:
        """Read these families, or everything, again.

        Each adapter answers by what is new of it as soon as that is read: both at once would take twice the memory.
        """
        read: set[str] = set()
        if families is None:
            async with connection.transaction(readonly=True):
                async for some in store.all_live_evidence(connection, self._embedded_by, AT_A_TIME):
                    await self._in_thread(self._set_all, some)
                    read.update(route.family for route, _ in some)
        else:
            wanted = list(families)
            for begin in range(0, len(wanted), AT_A_TIME):
                part = wanted[begin : begin + AT_A_TIME]
                some = await store.live_evidence(connection, self._embedded_by, part)
                await self._in_thread(self._set_all, some)
                read.update(route.family for route, _ in some)
        await self._in_thread(self._settle, (set(self._routes) if families is None else set(families)) - read)

    def _set_all(self, read: Sequence[tuple[LiveRoute, Evidence | None]]) -> None:
        for route, evidence in read:
            self._set(route, evidence)

    def _settle(self, gone: Collection[str]) -> None:
        """What a change means for the others."""
        for family in gone:
            self._forget(family)
        if self._calibration.drop != self._drop:
            self._drop = self._calibration.drop
            for family in self._known:
                self._search.set_floor(family, self._calibration.threshold(family).value)

    async def load_taught(self, connection: Connection, domains: Collection[str] | None = None) -> None:
        """Read what was taught in these domains, or in all."""
        wanted = None if domains is None else list(domains)
        read = await correction_store.corrections(connection, self._embedded_by, wanted)
        refused: dict[str, list[Vectors]] = defaultdict(list)
        taught: dict[str, dict[str, list[Vectors]]] = defaultdict(lambda: defaultdict(list))
        for domain, family, vector in read:
            if family is None:
                refused[domain].append(vector)
            else:
                taught[domain][family].append(vector)
        await self._in_thread(self._teach, refused, taught, domains)

    def _teach(
        self,
        refused: dict[str, list[Vectors]],
        taught: dict[str, dict[str, list[Vectors]]],
        domains: Collection[str] | None,
    ) -> None:
        concerned = set(self._taught) | set(self._refused) | set(refused) | set(taught) if domains is None else domains
        for domain in concerned:
            before = self._taught.pop(domain, {})
            self._refused.pop(domain, None)
            if domain in refused:
                self._refused[domain] = np.stack(refused[domain])
            if domain in taught:
                self._taught[domain] = taught[domain]
            for family in {*before, *taught.get(domain, {})}:
                if family in self._known:
                    self._put(family, self._search.vectors(family)[: self._known[family].vectors])

    def _set(self, route: LiveRoute, evidence: Evidence | None) -> None:
        if evidence is None:
            self._forget(route.family)
            self._routes[route.family] = route
            return
        self._routes[route.family] = route
        self._known[route.family] = Known(evidence.kind, len(evidence.vectors))
        self._calibration.put(route.family, evidence)
        self._put(route.family, evidence.vectors)

    def _forget(self, family: str) -> None:
        self._routes.pop(family, None)
        self._known.pop(family, None)
        self._search.drop(family)
        self._calibration.remove(family)

    def _put(self, family: str, own: Vectors) -> None:
        """own: without those of what was taught."""
        domain = self._routes[family].domain
        taught = self._taught.get(domain, {}).get(family, [])
        self._search.put(family, np.concatenate([own, *[one[None] for one in taught]]), domain)
        self._search.set_floor(family, self._calibration.threshold(family).value)

    def _found(self, route: LiveRoute, score: float, refused: float, given: float | None) -> Found:
        threshold, known = self._calibration.threshold(route.family), self._known[route.family]
        value = threshold.value if given is None else given
        candidate = Candidate(route.adapter_id, route.family, score, value, refused)
        near = self._calibration.share_not_nearer(route.family, score)
        return Found(candidate, route, known.kind, threshold.calibrated_on, near)


async def keep_in_step(pool: Pool, index: LiveIndex, loaded: Callable[[], Awaitable[None]]) -> NoReturn:
    """Load everything, then each change; `loaded` is called after each time.

    While PostgreSQL is unavailable the index answers as it is; then it is read again.
    """
    while True:
        try:
            async with pool.acquire(timeout=5) as connection:
                await _listen(connection, index, loaded)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("routing index waits for the database", reason=repr(error))
        await asyncio.sleep(AGAIN_AFTER)


async def _listen(connection: Connection, index: LiveIndex, loaded: Callable[[], Awaitable[None]]) -> None:
    changed: dict[str, set[str]] = {ROUTES: set(), TAUGHT: set()}
    wake = asyncio.Event()

    def notify(_connection: object, _pid: int, channel: str, payload: object) -> None:
        changed[channel].add(str(payload))
        wake.set()

    def lost(_connection: object) -> None:
        wake.set()

    keeps_session(connection)
    # Listening comes first: what is committed while everything is read is read again.
    for channel in changed:
        await connection.add_listener(channel, notify)
    connection.add_termination_listener(lost)
    try:
        await index.load_taught(connection)
        await index.load(connection)
        await loaded()
        while not connection.is_closed():
            await wake.wait()
            wake.clear()
            routes, taught = changed[ROUTES].copy(), changed[TAUGHT].copy()
            changed[ROUTES].clear()
            changed[TAUGHT].clear()
            if taught:
                await index.load_taught(connection, taught)
            if routes:
                await index.load(connection, routes)
            await loaded()
    finally:
        if not connection.is_closed():
            connection.remove_termination_listener(lost)
            for channel in changed:
                await connection.remove_listener(channel, notify)
