"""Backup of a running fleet, and a fleet restored from it."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fleet_cli.backup.database import dump_database
from fleet_cli.backup.manifest import Kept
from fleet_cli.backup.restore import restore_backup
from fleet_cli.backup.retention import IDENTITY, remove_surplus
from fleet_cli.backup.take import take_backup
from fleet_cli.stack import Fleet
from fleet_cli.stack.postgres import postgres_url
from fleet_events import v1
from fleet_events.topology import row_of
from fleet_kit.migrate import rollback
from lorafleet import BadInput, EventBus, FleetHome, Unreachable
from tests.integration.stack.test_life import TRACE, find_the_trace, leave_a_trace

pytestmark = pytest.mark.integration


@dataclass
class Copied:
    backup: Path
    home: Path


def registry(fleet: Fleet) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    return httpx.AsyncClient(base_url=fleet.info.services["registry"].url, headers=headers)


async def change_policy(fleet: Fleet, approve_at: float) -> None:
    async with registry(fleet) as client:
        changed = await client.put("/v1/policies/shop", json={"approve_at": approve_at})
        assert changed.status_code == 200, changed.text


async def policy(fleet: Fleet) -> object:
    async with registry(fleet) as client:
        return (await client.get("/v1/policies/shop")).json()["approve_at"]


@pytest.fixture(scope="module")
async def copied(tmp_path_factory: pytest.TempPathFactory) -> Copied:
    """A fleet with something in every store, copied while its registry runs."""
    folder = tmp_path_factory.mktemp("copied")
    with Fleet(folder / "home") as fleet:
        await asyncio.to_thread(fleet.start, ["registry"])
        await leave_a_trace(fleet)
        await change_policy(fleet, 91)
        home = FleetHome(fleet.home.root, {})
        await asyncio.to_thread(take_backup, home, folder / "backup", lambda _: None)
    return Copied(folder / "backup", folder / "home")


async def test_a_restored_fleet_has_all_that_was_there_and_goes_on(copied: Copied, fresh_home: Path) -> None:
    await asyncio.to_thread(restore_backup, copied.backup, fresh_home, lambda _: None)
    with Fleet(fresh_home) as restored:
        await asyncio.to_thread(restored.start, ["registry"])
        assert await find_the_trace(restored) == TRACE
        assert await policy(restored) == 91
        async with EventBus(FleetHome(fresh_home, {}), user="admin") as bus:
            changes = [one async for one in bus.follow(v1.PolicyChanged, after={}, wait=False)]
            assert [one.event.domain for one in changes if one.event] == ["shop"]
        client = await restored.connect_nats("admin")
        assert await client.jetstream().consumers_info(row_of(v1.TrainingCompleted).stream.name)
        await client.close()
        await change_policy(restored, 92)
        assert await policy(restored) == 92


def test_a_fleet_that_is_stopped_is_named_as_such_and_leaves_no_folder_behind(copied: Copied, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="NATS does not answer"):
        take_backup(FleetHome(copied.home, {}), tmp_path / "backup", lambda _: None)
    assert not (tmp_path / "backup").exists()


@pytest.mark.heavy
async def test_tables_that_only_this_release_has_are_migrated_again_behind_an_older_backup(
    copied: Copied, tmp_path: Path
) -> None:
    """An older backup is imitated by taking the registry's newest migration back in the restored database."""
    await asyncio.to_thread(restore_backup, copied.backup, tmp_path / "new", lambda _: None)
    with Fleet(tmp_path / "new") as older:
        await asyncio.to_thread(older.start, ())
        url = postgres_url("registry", older.credentials.postgres["registry"], older.ports["postgres"])
        await asyncio.to_thread(rollback, "registry", url)
        dump_database(older.info.database_admin_url, tmp_path / "older.dump")
    backup = tmp_path / "backup"
    shutil.copytree(copied.backup, backup)
    shutil.copy(tmp_path / "older.dump", backup / "database.dump")
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["files"]["database.dump"] = Kept.of(backup / "database.dump").model_dump()
    (backup / "manifest.json").write_text(json.dumps(manifest))
    await asyncio.to_thread(restore_backup, backup, tmp_path / "again", lambda _: None)
    with Fleet(tmp_path / "again") as restored:
        await asyncio.to_thread(restored.start, ["registry"])
        assert await policy(restored) == 91


def test_an_older_backup_of_the_fleet_goes_once_a_newer_one_is_complete(copied: Copied, tmp_path: Path) -> None:
    for name, began in (("older", "2026-01-01T00:00:00Z"), ("newer", "2026-01-02T00:00:00Z")):
        shutil.copytree(copied.backup, tmp_path / name)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert IDENTITY in manifest["files"]
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest | {"began": began}))
    assert remove_surplus(tmp_path / "newer", 1, None) == [tmp_path / "older"]
    assert [one.name for one in tmp_path.iterdir()] == ["newer"]


def test_a_backup_is_closed_to_others(copied: Copied) -> None:
    assert copied.backup.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [("changed", "database.dump is not what was written"), ("missing", "trace is missing"), ("cut short", "cut short")],
)
def test_a_damaged_backup_is_refused_before_anything_is_written(
    copied: Copied, tmp_path: Path, fresh_home: Path, spoilt: str, reason: str
) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(copied.backup, backup)
    match spoilt:
        case "changed":
            (backup / "database.dump").write_bytes(b"other")
        case "missing":
            (backup / "objects" / "trainer" / "trace").unlink()
        case "cut short":
            (backup / "manifest.json").unlink()
    with pytest.raises(BadInput, match=reason):
        restore_backup(backup, fresh_home, lambda _: None)
    assert not fresh_home.exists()


def test_a_home_that_is_not_empty_is_not_restored_into(copied: Copied) -> None:
    before = json.loads((copied.home / "fleet.json").read_text())
    with pytest.raises(BadInput, match="is not empty"):
        restore_backup(copied.backup, copied.home, lambda _: None)
    assert json.loads((copied.home / "fleet.json").read_text()) == before
