"""`lorafleet models describe`: what layers a base model has, written beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.fleet_cli.conftest import Lorafleet

pytestmark = pytest.mark.unit


def test_a_model_is_described_into_its_folder_and_what_is_no_model_is_refused_in_a_line(
    lorafleet: Lorafleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Phi3Config, Phi3ForCausalLM

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    Phi3ForCausalLM(Phi3Config(**sizes, num_hidden_layers=1, pad_token_id=0)).save_pretrained(tmp_path / "phi3")
    done = lorafleet("models", "describe", str(tmp_path / "phi3"), "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["decoder"] == "down_proj, gate_up_proj, o_proj, qkv_proj"
    assert json.loads(Path(answer["file"]).read_bytes())["layers"]["lm_head"]["kind"] == "head"
    refused = lorafleet("models", "describe", str(tmp_path))
    assert refused.exit_code == 2
    assert "expected config.json and *.safetensors" in refused.output
