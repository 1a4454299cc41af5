"""Checkpoints as one file."""

import tarfile
from pathlib import Path

import pytest

from services.trainer.runs.checkpoint import CONTENT, best_step, pack, unpack
from services.trainer.training.protocol import Validated

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoint-3"
    made.mkdir()
    for name in (*CONTENT, "training_args.bin", "tokenizer.json"):
        (made / name).write_text(f"content of {name}")
    return made


def test_what_is_needed_comes_back_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    back = unpack(pack(folder, tmp_path / "one.tar"), tmp_path / "back")
    assert {file.name: file.read_text() for file in back.iterdir()} == {n: f"content of {n}" for n in CONTENT}


def test_equal_content_gives_equal_bytes(folder: Path, tmp_path: Path) -> None:
    first = pack(folder, tmp_path / "one.tar").read_bytes()
    for file in folder.iterdir():
        file.touch()
    assert pack(folder, tmp_path / "two.tar").read_bytes() == first


def test_an_incomplete_checkpoint_is_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / "optimizer.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"optimizer\.pt"):
        pack(folder, tmp_path / "one.tar")


def test_an_archive_that_points_outside_writes_nothing_there(tmp_path: Path) -> None:
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as archive:
        link = tarfile.TarInfo("adapter_config.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(tarfile.FilterError):
        unpack(evil, tmp_path / "back")


def validated(step: int, loss: float) -> Validated:
    return Validated(step=step, epoch=1.0, loss=loss, seconds=0.1, best=False, metrics={})


@pytest.mark.requirement("TP-3.2")
def test_the_best_checkpoint_is_the_one_of_lowest_validation_loss_and_of_equal_ones_the_first() -> None:
    measured = [validated(3, 0.9), validated(6, 0.4), validated(9, 0.4), validated(12, 0.1)]
    assert best_step([9, 6, 3], measured) == 6
    assert best_step([9, 3], measured) == 9
    assert best_step([4, 5], measured) is None
    assert best_step([], measured) is None
