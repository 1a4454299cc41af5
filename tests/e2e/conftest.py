"""One adapter's life on the whole fleet and the real base model, from the outside: events in, HTTP out."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest
from nats.aio.client import Client

from benchmarks import gate_world
from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_events.message import Event
from fleet_events.topology import DEAD_STREAM, row_of
from fleet_kit.cloudevents import open_envelope

FACTS = dict(list(gate_world.FACTS.items())[:4])
WORDINGS = gate_world.WORDINGS
HELD_OUT = gate_world.HELD_OUT[0]
STEPS = 10
ONCE = (v1.TrainingCompleted, v1.AdapterRegistered, v1.EvaluationScored, v1.Approved, v1.AdapterActivated)
"""Events that there is one of in each loop."""


@dataclass
class Loop:
    """A domain of its own on a shared fleet."""

    fleet: Fleet
    http: httpx.AsyncClient
    upstream: Client
    admin: Client
    domain: str
    gate: bool = False
    """Whether the default policy decides, on samples enough for it, or any score is approved."""
    started: float = field(default_factory=time.monotonic)

    @property
    def facts(self) -> dict[str, str]:
        return gate_world.FACTS if self.gate else FACTS

    @property
    def golden(self) -> list[dict[str, object]]:
        """Four samples, or enough of them for a gate that decides on its own."""
        return [one for one in gate_world.golden() if self.gate or one["sample_id"] in {f"g{n}-0" for n in range(4)}]

    @property
    def job_id(self) -> str:
        return f"{self.domain}-job"

    @property
    def golden_id(self) -> str:
        return f"{self.domain}-golden"

    @property
    def family(self) -> str:
        return f"{self.domain}-lora"

    @property
    def adapter_id(self) -> str:
        return f"{self.family}-v1.0.0"

    def url(self, service: str, path: str) -> str:
        return f"{self.fleet.info.services[service].url}{path}"

    async def get(self, service: str, path: str) -> Any:
        response = await self.http.get(self.url(service, path))
        response.raise_for_status()
        return response.json()

    async def publish(self, event: Event, event_id: str, copy: str = "") -> None:
        """Publish as an upstream system would: its own NATS user, plain headers, a JSON body."""
        headers = {
            "ce-id": event_id,
            "ce-type": event.type_name,
            "ce-source": "tests",
            "content-type": "application/json",
        }
        headers["Nats-Msg-Id"] = event_id + copy
        subject = row_of(type(event)).subject
        for attempt in range(60):
            try:
                await self.upstream.jetstream().publish(subject, event.to_json(), timeout=2, headers=headers)
                return
            except Exception:
                if attempt == 59:
                    raise
                await asyncio.sleep(1)

    async def prepare(self) -> None:
        """Golden set, samples (as events) and, without the gate, a policy under which any score is approved."""
        if not self.gate:
            policy = await self.get("registry", f"/v1/policies/{self.domain}")
            policy |= {"mode": "simple", "approve_at": 0, "reject_below": 0}
            await self._send("PUT", "registry", f"/v1/policies/{self.domain}", json=policy)
        golden = {"dataset_id": self.golden_id, "domain": self.domain, "version": "1.0.0", "description": "held out"}
        await self._send("POST", "evaluator", "/v1/golden", json=golden)
        await self._send(
            "POST", "evaluator", f"/v1/golden/{self.golden_id}/samples", content="\n".join(map(json.dumps, self.golden))
        )
        number = 0
        for topic, fact in self.facts.items():
            for wording in WORDINGS:
                number += 1
                sample = v1.SampleRecorded(domain=self.domain, prompt=wording.format(topic), completion=fact, rating=5)
                await self.publish(sample, f"{self.domain}-sample-{number}")

        async def stored() -> bool:
            return await self._samples() == number

        await self.until(stored, 30)

    async def _samples(self) -> int:
        import asyncpg

        connection = await asyncpg.connect(self.fleet.info.database_admin_url)
        try:
            return int(await connection.fetchval("select count(*) from trainer.samples where domain = $1", self.domain))
        finally:
            await connection.close()

    async def request(self, **changes: Any) -> None:
        """The one event that starts everything."""
        hyperparameters = v1.Hyperparameters(
            rank=8, max_steps=STEPS, batch_size=4, learning_rate=2e-3, checkpoint_steps=3
        )
        event = v1.TrainingRequested(
            domain=self.domain,
            job_id=self.job_id,
            method="lora",
            golden_dataset_id=self.golden_id,
            description=f"Facts about the harbour town {self.domain}",
            hyperparameters=hyperparameters,
        ).model_copy(update=changes)
        await self.publish(event, f"{self.domain}-request")

    async def job(self) -> dict[str, Any]:
        response = await self.http.get(self.url("trainer", f"/v1/jobs/{self.job_id}"))
        return response.json() if response.status_code == 200 else {"state": "unknown"}

    async def adapter(self) -> dict[str, Any] | None:
        response = await self.http.get(self.url("registry", f"/v1/adapters/{self.adapter_id}"))
        return response.json() if response.status_code == 200 else None

    async def active(self) -> bool:
        found = await self.adapter()
        return bool(found and found["active"])

    async def ask(self, model: str, topic: str = "keeper of the lantern", max_tokens: int = 12) -> httpx.Response:
        """A held-out question, with a token that reaches this domain alone."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": HELD_OUT.format(topic)}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        token = self.fleet.credentials.issuer.mint("tests", ["generate"], [self.domain])
        headers = {"Authorization": f"Bearer {token}"}
        return await self.http.post(self.url("inference", "/v1/chat/completions"), json=body, headers=headers)

    async def answers(self) -> bool:
        """Whether the family answers with this version's own weights."""
        response = await self.ask(self.family)
        return response.status_code == 200 and response.json()["lorafleet"]["adapter_id"] == self.adapter_id

    async def events(self, *kinds: type[Event]) -> list[Event]:
        """This domain's events of these classes, in the order of their times."""
        jetstream = self.admin.jetstream()
        found: list[tuple[datetime, Event]] = []
        places = [
            (stream, sequence)
            for stream in sorted({row_of(kind).stream.name for kind in kinds})
            for sequence in range(1, (await jetstream.stream_info(stream)).state.last_seq + 1)
        ]
        for stream, sequence in places:
            try:
                message = await jetstream.get_msg(stream, seq=sequence)
            except Exception:  # forgotten by its time to live
                continue
            event, _ = open_envelope(message.subject or "", message.headers, message.data or b"", sequence)
            about = json.dumps(event.model_dump(mode="json"))
            if isinstance(event, kinds) and f'"{self.domain}' in about:
                found.append((message.time or datetime.min.replace(tzinfo=UTC), event))
        return [event for _, event in sorted(found, key=lambda one: one[0])]

    async def counted(self) -> dict[str, int]:
        """How many of the events that a loop has once there are of this one."""
        names = Counter(type(event).__name__ for event in await self.events(*ONCE))
        return {kind.__name__: names[kind.__name__] for kind in ONCE}

    async def dead_letters(self) -> int:
        return (await self.admin.jetstream().stream_info(DEAD_STREAM)).state.messages

    async def until(self, condition: Callable[[], Awaitable[object]], seconds: float) -> None:
        """Wait for a condition; what is away for a moment counts as not yet."""
        last: object = None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if await condition():
                    return
            except (httpx.HTTPError, OSError, TimeoutError) as error:
                last = error
            await asyncio.sleep(0.25)
        raise AssertionError(f"not within {seconds} s: {condition.__name__} ({last}); job {await self.job()}")

    async def finished_once(self, seconds: float = 240) -> None:
        """The final state is the same whatever happened on the way, and every event took effect once."""
        await self.until(self.active, seconds)
        await self.until(self.answers, 60)
        adapter = await self.adapter()
        assert adapter is not None
        assert adapter["status"] == "approved"
        counts = await self.counted()
        assert set(counts.values()) == {1}, counts
        versions = (await self.get("registry", f"/v1/adapters?domain={self.domain}"))["adapters"]
        assert [version["adapter_id"] for version in versions] == [self.adapter_id]
        evaluations = (await self.get("evaluator", f"/v1/evaluations?adapter_id={self.adapter_id}"))["evaluations"]
        assert [(one["state"], one["done"]) for one in evaluations] == [("scored", len(self.golden))]

    async def _send(self, method: str, service: str, path: str, **content: Any) -> None:
        response = await self.http.request(method, self.url(service, path), **content)
        assert response.status_code < 300, response.text


@asynccontextmanager
async def open_loop(fleet: Fleet, domain: str, *, gate: bool = False) -> AsyncIterator[Loop]:
    """A loop on a running fleet, prepared: its one event is all that it lacks."""
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    upstream = await fleet.connect_nats("upstream")
    admin = await fleet.connect_nats("admin")
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        loop = Loop(fleet, client, upstream, admin, domain, gate)
        try:
            # The test before this one may have killed a part that is still starting.
            await asyncio.to_thread(fleet.wait_ready)
            await loop.prepare()
            yield loop
        finally:
            await upstream.close()
            await admin.close()


@pytest.fixture
def new_loop(fleet: Fleet) -> Callable[..., Any]:
    """`async with new_loop("my-domain") as loop:`"""
    return partial(open_loop, fleet)
