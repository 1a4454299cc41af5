"""Opens what is submitted and refuses what cannot serve. The registry calls it through `inspection` alone.

numpy and pyarrow are imported by the first call, not before: the process that inspects needs them, the registry does
not. torch never is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_core.errors import AdapterError, CorruptAdapter, InvalidAdapter

if TYPE_CHECKING:
    from lora_core.card import LoRACard
    from lora_core.layer_shapes import LayerShapes

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


class CannotServe(Exception):
    """The checkpoint or artifact would never answer. `field` names what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Contents:
    """Rank, alpha and modules of a valid adapter. `target_modules` are projection names such as q_proj."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]


def preload() -> None:
    """Import what the other functions need, so that memory is counted without it."""
    import lora_core.format.arrow_format
    import lora_core.interop
    import lora_core.validation  # noqa: F401


def convert(folder: Path, name: str, to: Path, shapes: LayerShapes) -> Contents:
    """Check a PEFT folder against the base model's shapes and write it as an Arrow artifact.

    Raises CannotServe with the field at fault: not safetensors, pickle, wrong keys or shapes, rank or alpha out of
    range, NaN or infinity, no effect at all.
    """
    from lora_core.format.arrow_format import LoRAFormat

    try:
        card = _from_peft(folder, name, shapes)
        contents = check(card, shapes)
        LoRAFormat.save(card, to)
    except AdapterError as error:
        raise refusal(error, WEIGHTS) from error
    return contents


def open_artifact(artifact: Path, checkpoint: Path, shapes: LayerShapes) -> Contents:
    """Check an Arrow artifact against the base model's shapes and against the PEFT folder that it was made from.

    The artifact has to hold the checkpoint's numbers, rounded to its own dtype and nothing else: this is the link
    from checkpoint to artifact in the digest chain. Raises CannotServe.
    """
    from lora_core.format.arrow_format import LoRAFormat

    try:
        card = LoRAFormat.load(artifact)
        contents = check(card, shapes)
        original = _from_peft(checkpoint, card.name, shapes)
    except AdapterError as error:
        raise refusal(error, "artifact") from error
    _check_same(card, original)
    return contents


def _from_peft(folder: Path, name: str, shapes: LayerShapes) -> LoRACard:
    from lora_core.interop import from_peft

    return from_peft(folder, name, shapes)


def check(card: LoRACard, shapes: LayerShapes) -> Contents:
    """The contents of a card, once it fits the base model; raises AdapterError."""
    from lora_core.validation import check_card

    manifest = check_card(card, shapes)
    return Contents(manifest.max_rank, manifest.alpha, tuple(sorted(manifest.target_modules)))


def _check_same(card: LoRACard, original: LoRACard) -> None:
    from lora_core.array import bits, dtype_name, narrow, widen

    if set(card.weights) != set(original.weights):
        odd = sorted(set(card.weights) ^ set(original.weights))[0]
        raise CannotServe(
            "artifact", f"artifact and checkpoint adapt different modules: {odd} is present in only one of them"
        )
    for module, ours in card.weights.items():
        theirs = original.weights[module]
        if card.scaling(module) != original.scaling(module):
            raise CannotServe(
                "artifact.alpha",
                f"{module} is scaled by {card.scaling(module):g} in the artifact and by "
                f"{original.scaling(module):g} in the checkpoint",
            )
        if ours.arrays.keys() != theirs.arrays.keys():
            found = f"{sorted(ours.arrays)} in the artifact and {sorted(theirs.arrays)} in the checkpoint"
            raise CannotServe("artifact", f"{module} has {found}")
        for name, mine in ours.arrays.items():
            source = theirs.arrays[name]
            rounded = narrow(widen(source), dtype_name(mine))
            if mine.shape != source.shape or (bits(mine) != bits(rounded)).any():
                raise CannotServe("artifact", f"{module}.{name} is not what the checkpoint has")


def refusal(error: AdapterError, otherwise: str) -> CannotServe:
    """The error as a refusal that names its field, `otherwise` where it has none, and no place on this machine."""
    if isinstance(error, CorruptAdapter):  # its path is a place on this machine
        return CannotServe(error.path.name or otherwise, f"{error.path.name}: {error.reason}")
    return CannotServe(error.field if isinstance(error, InvalidAdapter) else otherwise, str(error))
