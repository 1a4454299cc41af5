"""Adapters with random damage: refused, or they mean what they meant. Nothing crashes their readers.

safetensors has no checksum, so a PEFT folder whose numbers were damaged is another valid adapter: there the rule is that
we read what the reference implementations read from the same bytes. An Arrow artifact has hashes, and an artifact beside
its checkpoint has the checkpoint: there damage is refused, or changed nothing.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lora_core import LoRACard, LoRAFormat, LoRAWeights
from lora_core.errors import AdapterError
from lora_core.interop import from_peft, to_peft
from lora_core.layer_shapes import LayerShapes
from services.registry.checkpoint import CannotServe, open_artifact

pytestmark = pytest.mark.unit
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SHAPES = LayerShapes({f"layers.{layer}.{name}_proj": (12, 16) for layer in range(2) for name in "qv"})


def card() -> LoRACard:
    rng = np.random.default_rng(7)
    weights = {}
    for number, (module, (outside, inside)) in enumerate(SHAPES.items()):
        rank = 2 + number % 2
        a, b = rng.standard_normal((rank, inside), np.float32), rng.standard_normal((outside, rank), np.float32)
        weights[module] = LoRAWeights(a, b, alpha=6.0 if number == 3 else None)
    return LoRACard("shop", 2, 8.0, ("q_proj", "v_proj"), weights, rslora=True)


def damage(raw: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done, and what came of it."""
    at = rng.randrange(len(raw))
    # Where a file's meaning is: a header and a configuration are short beside the numbers.
    early = rng.randrange(min(len(raw), 1_500))
    match kind := rng.choice(("bit", "early bit", "byte", "cut", "grow", "double", "zero", "digit", "length", "swap")):
        case "bit":
            return kind, raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
        case "early bit":
            return kind, raw[:early] + bytes([raw[early] ^ 1 << rng.randrange(8)]) + raw[early + 1 :]
        case "byte":
            return kind, raw[:early] + rng.randbytes(1) + raw[early + 1 :]
        case "cut":
            return kind, raw[:at]
        case "grow":
            return kind, raw[:at] + rng.randbytes(rng.randrange(1, 64)) + raw[at:]
        case "double":
            return kind, raw[:at] + raw[max(0, at - 40) : at] + raw[at:]
        case "zero":
            return kind, raw[:at] + bytes(len(raw[at : at + 16])) + raw[at + 16 :]
        case "digit":
            places = [place.start() for place in re.finditer(rb"\d", raw[:1_500])]
            place = rng.choice(places)
            return kind, raw[:place] + str(rng.randrange(10)).encode() + raw[place + 1 :]
        case "length":
            return kind, struct.pack("<Q", struct.unpack("<Q", raw[:8])[0] + rng.choice((-8, -1, 1, 8, 1 << 40))) + raw[
                8:
            ]
        case _:
            return kind, raw[:early] + raw[early + 8 : early + 16] + raw[early : early + 8] + raw[early + 16 :]


def meaning(adapter: LoRACard) -> dict[str, tuple[float, bytes, bytes]]:
    return {
        module: (adapter.scaling(module), weights.a.tobytes(), weights.b.tobytes())
        for module, weights in adapter.weights.items()
    }


def reference(folder: Path) -> dict[str, tuple[float, bytes, bytes]]:
    """The same of the reference implementations: safetensors' own reader, and PEFT's rules of scaling."""
    config, arrays = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    found = {}
    for key, b in arrays.items():
        if not key.endswith(".lora_B.weight"):
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
        rank, alpha = (
            next((value for pattern, value in (config.get(field) or {}).items() if re.match(rf"(.*\.)?({pattern})$", module)), config[whole])
            for field, whole in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
        )  # fmt: skip
        scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        found[module] = (scaling, arrays[key.replace("lora_B", "lora_A")].tobytes(), b.tobytes())
    return found


def damaged(tmp_path: Path, count: int) -> Counter[str]:
    to_peft(card(), tmp_path / "peft")
    LoRAFormat.save(card(), tmp_path / "artifact")
    whole = {name: (tmp_path / name).read_bytes() for name in (f"peft/{WEIGHTS}", f"peft/{CONFIG}", "artifact")}
    original, rng, counts = meaning(card()), random.Random(20), Counter[str]()
    for _ in range(count):
        name = rng.choice(list(whole))
        kind, raw = damage(whole[name], rng)
        (tmp_path / name).write_bytes(raw)
        what = f"{name}, {kind}"
        try:
            if name == "artifact":
                assert meaning(LoRAFormat.load(tmp_path / name)) == original, what
            else:
                read = meaning(from_peft(tmp_path / "peft"))
                theirs = reference(tmp_path / "peft")
                assert {module: mine[1:] for module, mine in read.items()} == {m: t[1:] for m, t in theirs.items()}, (
                    what
                )
                for module, (scaling, *_) in read.items():
                    assert scaling == pytest.approx(theirs[module][0], rel=1e-12), what
            counts["accepted alone"] += 1
        except AdapterError:
            counts["refused alone"] += 1
        try:
            open_artifact(tmp_path / "artifact", tmp_path / "peft", SHAPES)
            assert meaning(from_peft(tmp_path / "peft")) == original, what
            counts["accepted beside the other"] += 1
        except CannotServe:
            counts["refused beside the other"] += 1
        (tmp_path / name).write_bytes(whole[name])
    return counts


def test_damage_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    counts = damaged(tmp_path, 600)
    assert counts["refused alone"] > 300
    assert counts["refused beside the other"] > 400


@pytest.mark.heavy
def test_24_000_damaged_adapters_are_refused_or_mean_the_same(tmp_path: Path) -> None:
    counts = damaged(tmp_path, 24_000)
    print(dict(sorted(counts.items())))
    assert sum(counts.values()) == 48_000
