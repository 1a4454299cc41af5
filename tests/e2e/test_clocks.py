"""The whole fleet while the clocks of its services and of its database are moved, one after another."""

import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fleet_cli.stack import Fleet
from tests.e2e.chaos_round import SERVICES, run_round, undisturbed
from tests.e2e.tiny_fleet import use_tiny_model
from tests.shifted_clock import ShiftedClock

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
SHIFTS = (3600, -3600)
SHIFTED_SECONDS = 5.0
PARTS = ("postgres", *SERVICES)


@pytest.fixture
def clocks() -> Iterator[dict[str, ShiftedClock]]:
    """A clock for each part, where PostgreSQL's user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="lorafleet-clocks-"))
    folder.chmod(0o755)
    yield {part: ShiftedClock(folder, part) for part in PARTS}
    shutil.rmtree(folder)


def give_clocks(fleet: Fleet, clocks: dict[str, ShiftedClock]) -> None:
    """Restart the parts with clocks that can be moved."""
    for name, clock in clocks.items():
        part = fleet.part(name)
        part.stop()
        part.command = clock.shown_to(part.command)
        part.start()
    fleet.wait_ready(120)


async def move(clocks: dict[str, ShiftedClock]) -> Counter[str]:
    """An hour forward and an hour back, each part by itself."""
    moved = Counter[str]()
    for name, clock in clocks.items():
        for seconds in SHIFTS:
            clock.shift(seconds)
            moved[name] += 1
            await asyncio.sleep(SHIFTED_SECONDS)
        clock.shift(0)
        await asyncio.sleep(1)
    return moved


async def test_clocks_that_are_moved_an_hour_and_back_lose_and_double_nothing(
    tmp_path: Path,
    base_model: Path,
    clocks: dict[str, ShiftedClock],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_tiny_model(tmp_path / "models", base_model, monkeypatch)
    with Fleet(tmp_path / "home") as fleet:
        await asyncio.to_thread(fleet.start, SERVICES)
        await asyncio.to_thread(give_clocks, fleet, clocks)
        expected = await undisturbed(fleet, "calm")
        found = await run_round(fleet, "clocks", expected, partial(move, clocks))
        with capsys.disabled():
            print(found, file=sys.stderr)
    assert found.is_clean, found.notes
    assert found.seconds_until_ready < 30
