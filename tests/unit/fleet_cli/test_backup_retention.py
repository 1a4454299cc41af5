"""Older backups go by number and by age; nothing that may be somebody's else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet_cli.backup.manifest import NAME, BackupManifest, Kept
from fleet_cli.backup.retention import remove_surplus

NOON = datetime(2026, 12, 2, 12, tzinfo=UTC)


def backup(folder: Path, days_ago: float, key: str = "ours") -> Path:
    (folder / "keys").mkdir(parents=True)
    (folder / "keys/issuer.pem").write_text(key)
    began = NOON - timedelta(days=days_ago)
    manifest = BackupManifest(
        began=began,
        ended=began + timedelta(minutes=1),
        database="database.dump",
        streams={},
        files={"keys/issuer.pem": Kept.of(folder / "keys/issuer.pem")},
    )
    (folder / NAME).write_text(manifest.model_dump_json())
    return folder


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    """Five of one fleet, a day between each, and what is none of its complete backups."""
    for day in range(5):
        backup(tmp_path / f"day{day}", day)
    backup(tmp_path / "of another fleet", 9, key="theirs")
    backup(tmp_path / "cut short", 9)
    (tmp_path / "cut short" / NAME).unlink()
    (tmp_path / "notes.txt").write_text("kept by hand")
    (tmp_path / "link").symlink_to(tmp_path / "of another fleet")
    return tmp_path


OTHERS = {"of another fleet", "cut short", "notes.txt", "link"}


@pytest.mark.parametrize(
    ("keep", "days", "left"),
    [
        (None, None, 5),
        (2, None, 2),
        (1, None, 1),
        (9, None, 5),
        (None, 2.5, 3),
        (None, 0, 1),
        (4, 1.5, 2),
        (2, 3.5, 2),
    ],
)
def test_what_is_beyond_the_number_or_the_age_goes_and_nothing_of_others(
    backups: Path, keep: int | None, days: float | None, left: int
) -> None:
    removed = remove_surplus(backups / "day0", keep, None if days is None else timedelta(days=days))
    assert {path.name for path in backups.iterdir()} == {f"day{day}" for day in range(left)} | OTHERS
    assert [path.name for path in removed] == [f"day{day}" for day in range(left, 5)]


def test_a_backup_that_is_newer_than_this_one_stays(backups: Path) -> None:
    remove_surplus(backups / "day2", 1, None)
    assert {path.name for path in backups.iterdir()} == {"day0", "day1", "day2"} | OTHERS


def test_what_is_left_of_a_removal_that_was_cut_short_is_no_backup(
    backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fleet_cli.backup.retention.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_surplus(backups / "day0", 1, None)
    assert not (backups / "day1" / NAME).exists()


def test_a_folder_without_a_backup_keeps_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no backup"):
        remove_surplus(tmp_path, 1, None)
