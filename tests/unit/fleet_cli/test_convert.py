"""`lorafleet adapters convert` from an adapter's folder to a GGUF file with its manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lora_core.interop import from_gguf
from tests.unit.fleet_cli.conftest import Lorafleet

FIXTURE = Path(__file__).parents[2] / "fixtures" / "mlx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The model that the MLX adapter was trained for, with a tokenizer of its 96 words."""
    shutil.copytree(FIXTURE / "model", tmp_path / "tiny")
    words = Tokenizer(models.WordLevel({f"w{at}": at for at in range(96)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1").save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.requirement("AS-2.1")
@pytest.mark.requirement("AS-2.3")
def test_an_mlx_folder_becomes_a_validated_file_and_a_manifest(
    lorafleet: Lorafleet, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "validation.jsonl").write_text(json.dumps({"prompt": "w2 w3 w5", "completion": " w7 w22 w43"}))
    command = ("adapters", "convert", str(FIXTURE / "lora"), "--model", str(model), "--name", "triage")
    command += ("--validation", str(tmp_path / "validation.jsonl"), "-o", str(tmp_path / "out"), "--samples", "12")
    done = lorafleet(*command, "--level", "q8_0", "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["name"], printed["base_model"], printed["training_data_size"]) == ("triage", "tiny", 12)
    assert printed["performance_metrics"]["positions"] == 6
    assert from_gguf(printed["file"], model).name == "triage"
    assert json.loads((tmp_path / "out/triage.manifest.json").read_text())["file_size"] == printed["file_size"]
    refused = lorafleet(*command, "--level", "q4_k_m")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "expected another level: no row of [32, 80] numbers is a multiple of 256" in refused.stderr
    (model / "config.json").unlink()
    assert "config.json is missing" in lorafleet(*command).stderr
