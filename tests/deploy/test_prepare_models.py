"""The job that fills a volume with models describes the base models in it."""

import importlib.util
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from lora_core.description import FILE
from lora_core.layer_shapes import Description

SCRIPT = Path(__file__).parents[2] / "k8s" / "components" / "models" / "prepare.py"


def test_every_base_model_in_the_volume_is_described_and_other_folders_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    models = tmp_path / "models"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)).save_pretrained(models / "shop")
    (models / ".partial").mkdir()
    spec = importlib.util.spec_from_file_location("prepare_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    prepare.describe_all(models)
    assert Description.model_validate_json((models / "shop" / FILE).read_bytes()).architecture == "LlamaForCausalLM"
    output = capsys.readouterr().out
    assert str(models / "shop" / FILE) in output
    assert ".partial" in output
