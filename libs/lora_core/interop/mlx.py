"""mlx-lm's LoRA and DoRA checkpoints (adapter_config.json + adapters.safetensors) → LoRACard: no mlx, no torch.

mlx-lm keeps the matrices transposed against PEFT, `lora_a` [in, rank] and `lora_b` [rank, out], and scales by `scale`
itself: y = W x + scale · (x @ a) @ b. Its DoRA divides by the norm of each row of W + scale · BA and multiplies with
`m`, before the bias, which is PEFT's formula. Written against mlx-lm 0.32 (`mlx_lm.tuner.lora`, `mlx_lm.tuner.dora`).
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from lora_core.array import Array
from lora_core.base_model import linear_shapes
from lora_core.card import LoRACard
from lora_core.errors import AdapterNotFound, InvalidAdapter, UnsupportedAdapter
from lora_core.format.safetensors_file import map_weights
from lora_core.interop.json_file import read_json
from lora_core.validation import check_fit
from lora_core.weights import LoRAWeights

CONFIG = "adapter_config.json"
WEIGHTS = "adapters.safetensors"

_KEY = re.compile(r"(?P<module>.+)\.(?P<part>lora_a|lora_b|m)")
_PARAMETERS = {"rank", "scale", "dropout", "keys"}
# Where the adapter came from; everything else in mlx-lm's configuration describes how it was trained.
_KEPT = ("model", "data", "fine_tune_type", "num_layers", "iters", "learning_rate", "seed")
_NOT_LINEAR = ("embed_tokens", "lm_head", "wte")


def from_mlx(folder: Path | str, model: Path | str, name: str | None = None) -> LoRACard:
    """Read what `mlx_lm.lora` wrote; its matrices are transposed views.

    They are views of the mapped file where its tensors are aligned. mlx-lm does not see to that: most are copied.

    model: folder of the base model in the transformers layout; every adapted layer is looked up there, because mlx-lm
    renames the layers of some architectures. `name` defaults to the folder's.
    Raises AdapterNotFound (no checkpoint, no model), CorruptAdapter (not JSON, not safetensors), UnsupportedAdapter
    (full fine-tuning, adapted embeddings, output head or experts, numpy archives, a quantised base …) or
    InvalidAdapter, also where a layer or a shape is not the model's.
    """
    folder, model = Path(folder), Path(model)
    config = read_json(folder / CONFIG, f"no MLX adapter in {folder}: {CONFIG} is missing")
    kind = _fine_tune_type(config)
    rank, scale = _parameters(config)
    _refuse_foreign_files(folder)
    _refuse_packed_model(model)
    weights: dict[str, LoRAWeights] = {}
    for module, parts in _modules(map_weights(folder / WEIGHTS)).items():
        _check_parts(module, parts, kind)
        own = LoRAWeights(parts["lora_a"].T, parts["lora_b"].T, magnitude=parts.get("m"))
        if own.rank != rank:
            raise InvalidAdapter(f"{module} rank", own.rank, f"{rank}, as in {CONFIG}")
        weights[module] = own
    card = LoRACard(
        name=name or folder.resolve().name,
        rank=rank,
        alpha=scale * rank,
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in weights})),
        weights=weights,
        metadata={f"mlx.{key}": str(config[key]) for key in _KEPT if config.get(key) is not None},
    )
    check_fit(card, linear_shapes(model))
    return card


def _fine_tune_type(config: Mapping[str, object]) -> str:
    """`lora` or `dora`. Before `fine_tune_type` there was `use_dora`; without both it is LoRA, as mlx-lm has it."""
    kind = config.get("fine_tune_type", "dora" if config.get("use_dora") else "lora")
    if kind == "full":
        expected = "'lora' or 'dora': fully trained layers are a model, not an adapter (fuse them with mlx_lm.fuse)"
        raise UnsupportedAdapter("fine_tune_type", kind, expected)
    if kind not in ("lora", "dora"):
        raise UnsupportedAdapter("fine_tune_type", kind, "'lora' or 'dora'")
    return str(kind)


def _parameters(config: Mapping[str, object]) -> tuple[int, float]:
    """(rank, scale) of `lora_parameters`."""
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise InvalidAdapter("lora_parameters", parameters, f"an object with rank and scale in {CONFIG}")
    if "alpha" in parameters:
        # The first releases scaled by scale · alpha / rank, the later ones ignore alpha: the file does not show which.
        expected = "absent: write the factor that is meant into scale and delete alpha"
        raise UnsupportedAdapter("lora_parameters.alpha", parameters["alpha"], expected)
    for key in parameters.keys() - _PARAMETERS:
        raise UnsupportedAdapter(f"lora_parameters.{key}", parameters[key], "absent: lora_core does not apply it")
    rank, scale = parameters.get("rank"), parameters.get("scale")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise InvalidAdapter("lora_parameters.rank", rank, "a whole number of at least 1")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise InvalidAdapter("lora_parameters.scale", scale, "a finite number above 0")
    return rank, float(scale)


def _refuse_foreign_files(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    archives = sorted(folder.glob("*.npz"))
    if archives:
        expected = f"{WEIGHTS}: numpy archives may hold pickles (mx.save_safetensors writes what mx.load reads)"
        raise UnsupportedAdapter("weights file", archives[0].name, expected)
    raise AdapterNotFound(f"no MLX adapter in {folder}: {WEIGHTS} is missing")


def _refuse_packed_model(model: Path) -> None:
    """MLX's own quantised models hold packed integers: their layers have other shapes than those that are served."""
    config = read_json(model / "config.json", f"no base model in {model}: config.json is missing")
    if config.get("quantization"):
        expected = "absent: the base model in the transformers layout, not packed by mlx_lm.convert"
        raise UnsupportedAdapter("model quantization", config["quantization"], expected)


def _modules(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    modules: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UnsupportedAdapter("tensor", key, _tensor_expected(key))
        module = match["module"]
        if module.rpartition(".")[2] in _NOT_LINEAR:
            raise UnsupportedAdapter("tensor", key, "LoRA on linear layers inside the network alone")
        if array.ndim == 3:
            raise UnsupportedAdapter(
                "tensor", key, "LoRA on plain linear layers: experts (switch layers) are not adapted"
            )
        modules.setdefault(module, {})[match["part"]] = array
    if not modules:
        raise InvalidAdapter("tensors", "none", "lora_a and lora_b of at least one module")
    return modules


def _tensor_expected(key: str) -> str:
    if key.endswith((".scales", ".biases")):
        return "LoRA matrices alone: quantised weights cannot be adapted values"
    if key.endswith((".weight", ".bias")):
        return "LoRA matrices alone: fully trained layers are not applied"
    return "<module>.lora_a, <module>.lora_b or, for DoRA, <module>.m"


def _check_parts(module: str, parts: Mapping[str, Array], kind: str) -> None:
    wanted = {"lora_a", "lora_b", "m"} if kind == "dora" else {"lora_a", "lora_b"}
    if parts.keys() != wanted:
        found = " and ".join(sorted(parts))
        raise InvalidAdapter("tensors", f"{module} has {found}", f"{', '.join(sorted(wanted))} for {kind}")
