"""kill -9 of all services and servers at random moments of loops of tiny trainings, as many times as there is time for.

`LORAFLEET_TEST_STATE` is a folder that a later run goes on in, `LORAFLEET_TEST_KILLS` how many kills there shall be in
all, `LORAFLEET_TEST_SECONDS` how long a run may kill, `LORAFLEET_TEST_SEED` what moments and order follow from.
"""

import asyncio
import os
import random
import secrets
import time
from functools import partial
from pathlib import Path

import pytest

from fleet_cli.stack import Fleet
from tests.e2e.chaos_log import ChaosLog, kills, summary
from tests.e2e.chaos_round import SERVICES, kill_all, run_round, undisturbed
from tests.e2e.tiny_fleet import use_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(0)]
READY_SECONDS = 30.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return Path(os.environ.get("LORAFLEET_TEST_STATE") or tmp_path / "chaos").absolute()


@pytest.fixture
def tiny_base_model(state: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_model(state / "models", base_model, monkeypatch)


async def test_services_and_servers_killed_at_random_change_no_loops_end_and_lose_and_double_nothing(
    state: Path, tiny_base_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ChaosLog(state)
    wanted = int(os.environ.get("LORAFLEET_TEST_KILLS", "1000"))
    until = time.monotonic() + float(os.environ.get("LORAFLEET_TEST_SECONDS", "120"))
    chance = random.Random(f"{os.environ.get('LORAFLEET_TEST_SEED', '7')}-{len(log.rounds)}")

    def report(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    with Fleet(state / "home") as fleet:
        await asyncio.to_thread(fleet.start, SERVICES)
        expected = log.expected
        if expected is None:
            log.expected = expected = await undisturbed(fleet, f"calm-{secrets.token_hex(3)}")
        while kills(log.rounds) < wanted and time.monotonic() < until:
            name = f"r{len(log.rounds)}-{secrets.token_hex(3)}"
            found = await run_round(fleet, name, expected, partial(kill_all, fleet, chance, until))
            log.add(found)
            report(f"{name}: {found.facts} facts, ready after {found.seconds_until_ready} s; {'; '.join(found.notes)}")
            report(summary(log.rounds))
    assert all(one.is_clean for one in log.rounds)
    assert max(one.seconds_until_ready for one in log.rounds) < READY_SECONDS
