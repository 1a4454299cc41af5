"""A fleet of an earlier commit becomes one of this, service after service, while it is used.

What counts as failed: every answer but 200 (a 503 with Retry-After is asked again), every connection that breaks once an
answer has begun, and every request that finds no answer at its third try. Where a connection ends before a byte of the answer, the
request is sent up to twice again, half a second later, as OpenAI's clients do: those times are counted, and replicas of this
commit cause none.

`LORAFLEET_TEST_FROM` is the earlier commit: by default the one before the newest change of a schema.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import httpx
import pytest
from nats.js import JetStreamContext

from fleet_cli.stack import embedding_model_path
from fleet_cli.stack.bus import bus_command, connect_bus, provision_bus
from fleet_cli.stack.credentials import load_or_create
from fleet_cli.stack.environment import service_environment
from fleet_cli.stack.home import Home
from fleet_cli.stack.ports import choose
from fleet_cli.stack.schemas import migrate_service
from fleet_cli.stack.service_forks import ServiceForks
from fleet_events import v1
from fleet_events.topology import CONSOLE, DEAD_STREAM, STORING, STREAMS, row_of
from tests.e2e.acknowledged import Publisher, all_took_effect_once, facts
from tests.e2e.conftest import Loop
from tests.e2e.rolling import USED, Address, Deployment, Release, at_addresses, before_newest_migration, servers_of
from tests.integration.inference.conftest import tiny_copy

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
REPLICAS = {"inference": 2}
OWN = {"evaluator": {"LORAFLEET_MAX_TOKENS": "16"}}  # the tiny model has no room for the default
QUESTION = [{"role": "user", "content": "Who keeps the lantern?"}]


@dataclass
class Users:
    """Requests at every service, on connections that are used again."""

    addresses: dict[str, Address]
    token: str
    answered: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    generations: list[str] = field(default_factory=list)
    """Ids of the answers that were received."""
    models: list[str] = field(default_factory=lambda: ["tiny", "auto"])
    ended: bool = False

    async def use(self) -> None:
        limits = httpx.Limits(keepalive_expiry=2)  # below the server's, so that no request meets its close
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(timeout=60, limits=limits, headers=headers) as client:
            await asyncio.gather(self._chat(client, 0), self._chat(client, 1), self._look(client))

    async def _chat(self, client: httpx.AsyncClient, first: int) -> None:
        for number in itertools.count(first, 2):
            if self.ended:
                return
            body = {"model": self.models[number // 2 % len(self.models)], "messages": QUESTION, "max_tokens": 8}
            await self._try(f"chat {body['model']}", client, "/v1/chat/completions", body | {"stream": number % 4 > 1})

    async def _look(self, client: httpx.AsyncClient) -> None:
        while not self.ended:
            for service, path in (("registry", "adapters"), ("trainer", "jobs"), ("evaluator", "golden")):
                await self._try(service, client, f"/v1/{path}", None)
            await self._try("router", client, "/v1/route", {"query": "the keeper of the lantern"})
            await asyncio.sleep(0.05)

    async def _try(self, kind: str, client: httpx.AsyncClient, path: str, body: dict[str, Any] | None) -> None:
        service = "inference" if kind.startswith("chat") else kind
        url = self.addresses[service].url + path
        tries = 0
        while True:
            began = False
            try:
                async with client.stream("GET" if body is None else "POST", url, json=body) as response:
                    began = True
                    text = (await response.aread()).decode()
            except httpx.TransportError as error:
                tries += 1
                if began or tries > 2 or isinstance(error, httpx.TimeoutException):
                    self.failed.append(f"{kind}: {error!r}, begun: {began}, tries: {tries}")
                    return
                self.again[f"{service}: {error!r}"] += 1
                await asyncio.sleep(0.5)
                continue
            if response.status_code == 503 and "retry-after" in response.headers:
                self.again[f"{service}: 503"] += 1
                await asyncio.sleep(float(response.headers["retry-after"]))
                continue
            self._take(kind, response.status_code, text, streamed=bool(body and body.get("stream")))
            return

    def _take(self, kind: str, status: int, text: str, *, streamed: bool) -> None:
        if status != 200 or (streamed and not whole(text)):
            self.failed.append(f"{kind}: {status} {text[-300:]}")
            return
        self.answered[kind] += 1
        if kind.startswith("chat"):
            first = text.split("\n\n")[0].removeprefix("data: ") if streamed else text
            self.generations.append(json.loads(first)["id"])

    async def more(self, requests: int = 4) -> None:
        """Wait until every kind of request was answered so often from now on."""
        before = self.answered.copy()
        kinds = ["registry", "trainer", "evaluator", "router", *(f"chat {model}" for model in self.models)]
        async with asyncio.timeout(120):
            while any(self.answered[kind] - before[kind] < requests for kind in kinds):
                await asyncio.sleep(0.1)


def whole(stream: str) -> bool:
    """Whether a stream of events came to its end, and none of them is an error."""
    *events, last = (one.removeprefix("data: ") for one in stream.split("\n\n") if one)
    return last == "[DONE]" and not any("error" in json.loads(one) for one in events)


async def publish(publisher: Publisher, users: Users) -> None:
    for number in itertools.count():
        if users.ended:
            return
        await asyncio.gather(*(publisher.publish(source, event) for source, event in facts(number, "upstream")))
        await asyncio.sleep(0.05)


async def generations(jetstream: JetStreamContext) -> list[v1.GenerationCompleted]:
    row = row_of(v1.GenerationCompleted)
    info = await jetstream.stream_info(row.stream.name, subjects_filter=row.subject)
    subscription = await jetstream.subscribe(row.subject, stream=row.stream.name, ordered_consumer=True)
    try:
        messages = [await subscription.next_msg(timeout=5) for _ in range((info.state.subjects or {})[row.subject])]
    finally:
        await subscription.unsubscribe()
    return [v1.GenerationCompleted.from_json(one.data) for one in messages]


async def settled(jetstream: JetStreamContext, database: str) -> None:
    """Wait until nothing waits: not in an outbox, not in a stream."""
    connection = await asyncpg.connect(database)
    try:
        async with asyncio.timeout(120):
            while True:
                outboxes = [
                    await connection.fetchval(f"select count(*) from {name}.outbox where published_at is null")
                    for name in STORING
                ]
                infos = [one for stream in STREAMS for one in await jetstream.consumers_info(stream.name)]
                waiting = {one.name: one.num_pending + one.num_ack_pending for one in infos if one.config.durable_name}
                if not any(outboxes) and not any(waiting.values()):
                    return
                await asyncio.sleep(0.5)
    finally:
        await connection.close()


async def test_a_fleet_of_an_earlier_commit_becomes_one_of_this_without_a_failed_request_or_a_lost_event(
    base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    reference = os.environ.get("LORAFLEET_TEST_FROM") or before_newest_migration()
    release = await asyncio.to_thread(Release.of, reference, tmp_path / "release")
    tiny = tiny_copy(tmp_path / "tiny", base_model, seed=7, intermediate_size=96)
    common = {
        "LORAFLEET_BASE_MODEL": str(tiny),
        "LORAFLEET_BASE_MODEL_NAME": "tiny",
        "LORAFLEET_THREADS": "1",
        "LORAFLEET_HTTP_LEAVE_SECONDS": "2",
        "LORAFLEET_PRESSURE_MEDIUM": "9",
        "LORAFLEET_PRESSURE_HIGH": "9",
        "LORAFLEET_PRESSURE_CRITICAL": "9",
    }
    with servers_of(release, tmp_path / "home") as before:
        home = Home.open(tmp_path / "home")
        credentials = load_or_create(home)
        ports: dict[str, int] = {**before["ports"], **choose((CONSOLE,), {})}
        async with AsyncExitStack() as stack:
            addresses = await stack.enter_async_context(at_addresses(ports))
            forks = ServiceForks(home.logs)
            stack.callback(forks.close)
            deployments = {
                name: Deployment(name, addresses[name], home, common | OWN.get(name, {}), forks) for name in USED
            }
            for one in deployments.values():
                stack.push_async_callback(one.stop)
            old = [
                one.add(before["environments"][name], release.interpreter)
                for name, one in deployments.items()
                for _ in range(REPLICAS.get(name, 1))
            ]
            await asyncio.gather(*old)
            report(f"the fleet of {release.commit} is ready")

            services = {name: SimpleNamespace(url=one.url) for name, one in addresses.items()}
            info = SimpleNamespace(services=services, database_admin_url=before["database"])
            fleet: Any = SimpleNamespace(info=info, credentials=credentials)
            clients = {}
            for user in ("upstream", "admin"):
                clients[user] = await connect_bus(ports["nats"], user, credentials.nats_seeds[user])
                stack.push_async_callback(clients[user].close)
            token = credentials.tokens["admin"].read_text().strip()
            headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
            http = await stack.enter_async_context(httpx.AsyncClient(headers=headers, timeout=60))
            jetstream = clients["admin"].jetstream(timeout=5)
            loops: list[Loop] = []

            async def begin(domain: str) -> Loop:
                loop = Loop(fleet, http, clients["upstream"], clients["admin"], domain)
                await loop.prepare()
                await loop.request()
                loops.append(loop)
                return loop

            first = await begin("first")
            await first.finished_once(120)
            users = Users(addresses, token)
            users.models.append(first.family)
            publisher = Publisher(clients["admin"])
            load = asyncio.gather(users.use(), publish(publisher, users))
            await users.more()
            report(f"answered by {release.commit}: {dict(users.answered)}")

            await begin("schemas")
            # In the order of docs/operations.md: accounts of the bus, streams and durables, schemas, services.
            bus_command(home, ports, credentials)  # writes the configuration
            os.kill(json.loads((home.run / "nats.json").read_text())["pid"], signal.SIGHUP)
            await asyncio.to_thread(provision_bus_now, ports, credentials)
            for name in STORING:
                await asyncio.to_thread(migrate_service, name, ports["postgres"], credentials.postgres)
            await users.more()
            report(f"on the schemas of this commit: {dict(users.answered)}")

            for name, one in deployments.items():
                await begin(f"during-{name}")
                environment = service_environment(name, home, ports, credentials, embedding_model_path())
                for _ in range(REPLICAS.get(name, 1)):
                    await one.add(environment, None)
                    await one.remove_oldest()
                await users.more()
                report(f"{name} is replaced; {len(users.failed)} failed, tried again {dict(users.again)}")

            tried_again = users.again.total()
            for name in ("router", "inference"):
                await deployments[name].add(
                    service_environment(name, home, ports, credentials, embedding_model_path()), None
                )
                await deployments[name].remove_oldest()
            await users.more()
            report(f"replicas of this commit replaced: {users.again.total() - tried_again} tried again")

            users.ended = True
            await load
            report(f"{users.answered.total()} requests, {len(users.failed)} failed: {dict(users.answered)}")
            assert users.failed == []
            assert users.again.total() == tried_again, users.again

            for loop in loops:
                await loop.finished_once(180)
            await settled(jetstream, before["database"])
            await all_took_effect_once(fleet, "upstream", publisher.acknowledged, 60)
            assert (await jetstream.stream_info(DEAD_STREAM)).state.messages == 0
            completed = await generations(jetstream)
            times = Counter(one.generation_id for one in completed)
            assert {times[one] for one in users.generations} == {1}
            report(f"{len(users.generations)} answers, each in one event; {dict(publisher.acknowledged)}, each once")

            families = {loop.family: loop.adapter_id for loop in loops}
            active = (await http.get(f"{addresses['registry'].url}/v1/adapters?active=true")).json()["adapters"]
            assert {one["family"]: one["adapter_id"] for one in active} == families
            listed = [
                {one["id"] for one in (await http.get(f"{replica.url}/v1/models")).json()["data"]}
                for replica in deployments["inference"].running
            ]
            assert listed[0] == listed[1]
            assert families.keys() <= listed[0]
            routes = f"{addresses['router'].url}/v1/routes"
            kept = (await http.get(routes)).json()["routes"]
            assert {one["family"]: one["adapter_id"] for one in kept} == families
            (await http.post(f"{addresses['router'].url}/admin/rebuild")).raise_for_status()
            assert by_family((await http.get(routes)).json()["routes"]) == by_family(kept)
            report(f"projections of {len(families)} families are equal, and equal to the stream's")


def by_family(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    key: Callable[[dict[str, Any]], str] = lambda one: one["family"]  # noqa: E731
    return sorted(routes, key=key)


def provision_bus_now(ports: dict[str, int], credentials: Any) -> None:
    asyncio.run(provision_bus(ports["nats"], credentials.nats_seeds["admin"], credentials.certificates))
