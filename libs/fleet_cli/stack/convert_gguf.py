"""Turns a GGUF file into a plain transformers folder (fp32 safetensors). Run as a process of its own:

    python -m fleet_cli.stack.convert_gguf MODEL.gguf FOLDER

so that the caller never has torch and transformers in its memory. Reading GGUF takes transformers about 20 s; the
folder written here loads in about one second.
"""

from __future__ import annotations

import sys
from pathlib import Path


def convert(source: Path, target: Path) -> None:
    """Write configuration, fp32 weights, tokenizer and chat template of the GGUF file into the folder `target`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lora_core.description import write_description

    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    # The weights are already dequantised in memory; these two make save_pretrained believe otherwise.
    setattr(model, "hf_quantizer", None)  # noqa: B010 - no declared attribute
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)
    write_description(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
