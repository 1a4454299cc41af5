"""A bus whose disk was full stores events again once there is room, without anybody restarting it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import nats.errors
import pytest
from nats.js.errors import APIError

from fleet_cli.stack import Fleet
from tests.small_disk import mounted

pytestmark = pytest.mark.integration
SUBJECT = "lorafleet.v1.adapter.approved"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", mebibytes=24) as folder:
        yield folder


@pytest.fixture
def home_on_small_disk(fresh_home: Path, small_disk: Path) -> Path:
    (fresh_home / "nats").mkdir(parents=True, mode=0o700)
    fresh_home.chmod(0o700)
    (fresh_home / "nats" / "jetstream").symlink_to(small_disk)
    return fresh_home


@pytest.mark.heavy
async def test_a_server_whose_disk_was_full_is_restarted_once_there_is_room(
    home_on_small_disk: Path, small_disk: Path
) -> None:
    with Fleet(home_on_small_disk) as fleet:
        await asyncio.to_thread(fleet.start, [])
        client = await fleet.connect_nats("admin")
        jetstream = client.jetstream(timeout=1)
        assert fleet.bus_watch is not None
        try:
            ballast = small_disk / "ballast"
            with ballast.open("wb") as file:
                free = os.statvfs(small_disk)
                file.write(b"x" * (free.f_bavail * free.f_bsize - 256 * 1024))
            stored = 0
            with pytest.raises((nats.errors.Error, TimeoutError)):
                for _ in range(200):
                    await jetstream.publish(SUBJECT, b"x" * 16_384)
                    stored += 1
            await asyncio.sleep(4)
            assert fleet.bus_watch.restarts == 0, "a restart gives a full disk no room"
            assert fleet.bus_watch.fault()
            ballast.unlink()
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    await jetstream.publish(SUBJECT, b"again")
                    break
                except (nats.errors.Error, APIError, OSError, TimeoutError):
                    await asyncio.sleep(0.2)
            else:
                pytest.fail("the server stores nothing though there is room")
            state = (await jetstream.stream_info("LORAFLEET")).state
            assert state.messages >= stored + 1
            assert fleet.bus_watch.restarts == 1
            assert fleet.bus_watch.fault() == ""
        finally:
            await client.close()
