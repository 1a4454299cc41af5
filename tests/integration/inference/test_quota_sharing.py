"""Replicas that share their accounts over the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from nats.js import JetStreamContext

from fleet_cli.stack import Fleet
from fleet_events.buckets import USED
from fleet_kit import tasks
from fleet_kit.key_value import KeyValue
from services.inference.errors import RateLimited
from services.inference.quotas import Ledger, Quotas, sharing
from services.inference.quotas.sharing import share

pytestmark = pytest.mark.integration

QUOTAS = Quotas.model_validate({"domains": {"shop": {"month": {"requests": 3}}}})


@pytest.fixture
async def as_inference(servers: Fleet) -> AsyncIterator[JetStreamContext]:
    """JetStream with the rights of inference and no more."""
    client = await servers.connect_nats("inference")
    js = client.jetstream(timeout=5)
    yield js
    await client.close()


@asynccontextmanager
async def replica(js: JetStreamContext, name: str) -> AsyncIterator[Ledger]:
    ledger = Ledger(QUOTAS)
    sharing = asyncio.create_task(share(ledger, KeyValue(js, USED), name))
    try:
        yield ledger
    finally:
        await tasks.end(sharing)


def refuses(ledger: Ledger) -> bool:
    try:
        ledger.admit("anna", "shop")
    except RateLimited:
        return True
    return False


class Unavailable(KeyValue):
    """A bucket whose server does not answer."""

    async def keys(self, pattern: str) -> list[str]:
        raise TimeoutError


async def test_while_the_bus_is_unavailable_a_replica_counts_by_itself(
    as_inference: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "EVERY", 0.01)
    ledger = Ledger(QUOTAS)
    task = asyncio.create_task(share(ledger, Unavailable(as_inference, USED), "alone"))
    for _ in range(3):
        assert not refuses(ledger)
        ledger.charge("anna", "shop", (1, 0, 0))
        await asyncio.sleep(0.02)
    assert refuses(ledger)
    assert not task.done()
    await tasks.end(task)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not true():
            await asyncio.sleep(0.05)


async def test_replicas_bound_a_domain_together_and_a_restarted_one_counts_what_it_gave(
    as_inference: JetStreamContext,
) -> None:
    async with replica(as_inference, "one") as one:
        async with replica(as_inference, "two") as two:
            one.charge("anna", "shop", (2, 0, 0))
            assert not refuses(two)
            two.charge("anna", "shop", (1, 0, 0))
            await until(lambda: refuses(one) and refuses(two))
        # Not told to the others before: it has only its own entry to go by.
        async with replica(as_inference, "two") as two_again:
            await until(lambda: refuses(two_again))
            assert sum(two_again.used().in_month["d:shop"]) == 1
