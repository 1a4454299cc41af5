"""The files of a trained adapter: as PEFT reads it, and as the fleet serves it."""

import json
from pathlib import Path
from typing import Any

from lora_core import LoRAFormat
from lora_core.interop import from_peft
from lora_core.layer_shapes import LayerShapes
from lora_core.validation import check_card


def write_peft(model: Any, folder: Path, base_model_name: str) -> tuple[Path, Path]:
    """adapter_model.safetensors and adapter_config.json of the trained adapter alone, byte-stable."""
    model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    described = json.loads(config.read_bytes())
    # PEFT writes a set in the order of its hashes, which differs from process to process.
    described["target_modules"] = sorted(described["target_modules"])
    # It also writes the folder the weights were read from, which is this machine's business; the name travels.
    described["base_model_name_or_path"] = base_model_name
    config.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    return weights, config


def write_artifact(peft: Path, path: Path, layers: LayerShapes) -> str:
    """Write the Arrow file of a PEFT folder; returns its digest.

    Raises:
        AdapterError: the registry would refuse it.
    """
    card = from_peft(peft)
    check_card(card, layers)
    return LoRAFormat.save(card, path)
