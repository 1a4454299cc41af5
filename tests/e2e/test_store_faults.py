"""Whole loops while the object store is slow, fails, resets connections and takes no writes, in turn."""

import asyncio
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fleet_cli.stack import Fleet
from tests.e2e.chaos_round import SERVICES, run_round, undisturbed
from tests.e2e.tiny_fleet import use_tiny_model
from tests.faulty_store import FaultyStore, StoreFault

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
FAULTY_SECONDS = 8.0


def move_to(fleet: Fleet, address: str) -> None:
    """Restart the services on another address of the store."""
    for name in SERVICES:
        part = fleet.part(name)
        part.stop()
        part.command = replace(part.command, environment={**part.command.environment, "LORAFLEET_S3_ENDPOINT": address})
        part.start()
    fleet.wait_ready(90)


async def in_turn(store: FaultyStore) -> Counter[str]:
    """Every fault once, with a moment of a good store between: work goes on to where the next one meets it."""
    met = Counter[str]()
    for fault in StoreFault:
        before, store.fault = store.refused, fault
        await asyncio.sleep(FAULTY_SECONDS)
        store.fault = None
        met[fault.value] = store.refused - before
        await asyncio.sleep(3)
    return met


async def test_a_store_that_is_slow_fails_resets_or_takes_no_writes_costs_no_loop_its_end(
    tmp_path: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tiny_model(tmp_path / "models", base_model, monkeypatch)
    with Fleet(tmp_path / "home") as fleet:
        await asyncio.to_thread(fleet.start, SERVICES)
        store = FaultyStore(fleet.ports["s3"])
        await asyncio.to_thread(move_to, fleet, await store.start())
        expected = await undisturbed(fleet, "calm")
        found = await run_round(fleet, "store", expected, partial(in_turn, store))
        store.stop()
        with capsys.disabled():
            print(found, file=sys.stderr)
    assert found.is_clean, found.notes
    assert set(found.kills) == {fault.value for fault in StoreFault}
    assert min(found.kills.values()) > 0
    assert found.seconds_until_ready < 30
