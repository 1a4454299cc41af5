"""One adapter of MLX or PEFT made ready for llama.cpp: converted, rounded, validated on the base model, described.

The pipeline of the adapter strategy: MLX → GGUF → quantised → validated on the validation set → manifest.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from lora_core.array import widen
from lora_core.card import LoRACard
from lora_core.compression_quality import AdapterDifference, matrix_error, measure_difference
from lora_core.engine import ArrowEngine
from lora_core.errors import AdapterNotFound, InvalidAdapter
from lora_core.interop import from_gguf, from_mlx, from_peft, to_gguf
from lora_core.interop.gguf import Quantisation
from lora_core.interop.mlx import WEIGHTS as MLX_WEIGHTS
from lora_core.interop.peft import WEIGHTS as PEFT_WEIGHTS
from lora_core.manifest import AdapterManifest
from lora_core.profiles import level_threshold
from lora_core.replace_file import replace_file


@dataclass(frozen=True)
class Description:
    """What a manifest holds beyond what is measured. adapter_type chooses the threshold: see `lora_core.profiles`."""

    name: str
    version: str
    base_model: str
    adapter_type: str
    training_data_size: int
    created: datetime
    specialized_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Converted:
    """The GGUF file, its manifest, and what rounding cost. error: ‖difference‖ / ‖original‖ of all matrices."""

    gguf: Path
    manifest: AdapterManifest
    difference: AdapterDifference
    error: float


def convert_for_llama(
    folder: Path | str,
    to: Path | str,
    model: Path | str,
    description: Description,
    *,
    engine: ArrowEngine,
    validation: Sequence[Sequence[int]],
    quantisation: Quantisation | None = None,
) -> Converted:
    """Write `<name>.gguf` and `<name>.manifest.json` into the folder `to`, or neither.

    folder: an MLX or PEFT folder. model: folder of the base model, which `engine` serves (two free slots are needed).
    validation: token ids of each validation text. The written file is read back and run over all their positions: it is
    refused where it prefers the original's token at fewer of them than the adapter type's profile requires here.

    Raises InvalidAdapter (field `agreement` below the threshold), ValueError without validation texts, and what
    reading, writing and measuring raise.
    """
    to, model = Path(to), Path(model)
    card = replace(read_adapter(folder, model), name=description.name)
    threshold = level_threshold(description.adapter_type, quantisation)
    path = to / f"{description.name}.gguf"
    to_gguf(card, path, model, quantisation)
    try:
        back = from_gguf(path, model)
        difference = measure_difference(engine, card, back, validation)
        if difference.agreement < threshold:
            found = f"{difference.agreement:.4f} of {difference.positions} positions"
            raise InvalidAdapter("agreement", found, f"at least {threshold:g}: choose a finer level")
        manifest = _manifest(card, path, description, difference)
        text = manifest.model_dump_json(indent=2) + "\n"
        replace_file(to / f"{description.name}.manifest.json", lambda part: part.write_text(text))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Converted(path, manifest, difference, matrix_error(card, _alike(back, card)))


def read_adapter(folder: Path | str, model: Path | str) -> LoRACard:
    """The adapter in an MLX or PEFT folder; raises AdapterNotFound where it holds neither, and what reading raises."""
    folder = Path(folder)
    if (folder / MLX_WEIGHTS).is_file():
        return from_mlx(folder, model)
    if (folder / PEFT_WEIGHTS).is_file():
        return from_peft(folder, base_model=model)
    raise AdapterNotFound(f"no adapter in {folder}: expected {MLX_WEIGHTS} (MLX) or {PEFT_WEIGHTS} (PEFT)")


def _alike(card: LoRACard, original: LoRACard) -> LoRACard:
    """Its B times the factor that it is scaled by otherwise, so that matrices can be compared."""
    weights = {
        module: replace(own, b=widen(own.b) * np.float32(card.scaling(module) / original.scaling(module)))
        for module, own in card.weights.items()
    }
    return replace(card, weights=weights)


def _manifest(card: LoRACard, file: Path, description: Description, difference: AdapterDifference) -> AdapterManifest:
    measured = {
        "same_token": difference.agreement,
        "divergence": difference.divergence,
        "positions": difference.positions,
    }
    metadata = {
        "version": description.version,
        "base_model": description.base_model,
        "specialized_for": ",".join(description.specialized_for or (description.adapter_type,)),
        "training_data_size": str(description.training_data_size),
        "performance_metrics": json.dumps(measured),
        "creation_date": description.created.isoformat(),
    }
    return AdapterManifest.of(replace(card, metadata=metadata), file)
