"""The whole fleet while its PostgreSQL is lost for good and a standby takes over."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.chaos_round import SERVICES, run_round, undisturbed
from tests.e2e.tiny_fleet import use_tiny_model
from tests.fleet_with_standby import FleetWithStandby

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
UNAVAILABLE_SECONDS = 5.0
"""Until whoever watches over the servers has the standby take over."""


async def fail_over(fleet: FleetWithStandby) -> Counter[str]:
    await asyncio.sleep(14)  # one loop is in its training then, another one is requested
    await asyncio.to_thread(fleet.lose_primary)
    await asyncio.sleep(UNAVAILABLE_SECONDS)
    assert fleet.standby is not None
    await fleet.standby.promote()
    return Counter(primary=1)


async def test_a_standby_that_takes_over_under_load_loses_and_doubles_nothing(
    tmp_path: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tiny_model(tmp_path / "models", base_model, monkeypatch)
    with FleetWithStandby(tmp_path / "home") as fleet:
        await asyncio.to_thread(fleet.start, SERVICES)
        expected = await undisturbed(fleet, "calm")
        await asyncio.to_thread(fleet.add_standby, SERVICES)
        found = await run_round(fleet, "failover", expected, lambda: fail_over(fleet))
        with capsys.disabled():
            print(found, file=sys.stderr)
    assert found.is_clean, found.notes
    assert found.seconds_until_ready < 30
