"""Further forms of a trained adapter: what the trainer claims of them is verified before they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.registry.checkpoint import CannotServe

if TYPE_CHECKING:
    from fleet_events import v1

ARROW_KINDS = ("int8", "int4")
OWN_NUMBERS = "gguf"
"""The form that rounds nothing; it is fit where its matrices are the adapter's."""


def check_claims(exports: Sequence[v1.Export]) -> None:
    """A form is fit only if it was measured and reaches its threshold; raises CannotServe with the field at fault."""
    for index, export in enumerate(exports):
        field = f"exports.{index}.fit"
        if not export.fit or export.kind == OWN_NUMBERS:
            continue
        if export.same_token is None or export.quality_threshold is None:
            raise CannotServe(
                field, f"{export.kind} claims fit=true without a measured agreement on the validation split"
            )
        if export.same_token < export.quality_threshold:
            raise CannotServe(
                field,
                f"{export.kind} claims fit=true, but agreement {export.same_token:g} is below the required "
                f"{export.quality_threshold:g}",
            )


def check_arrow(field: str, file: Path, artifact: Path) -> None:
    """A quantised Arrow file must hold the artifact's modules, shapes and scaling; raises CannotServe. Blocking."""
    from lora_core.errors import AdapterError
    from lora_core.format.arrow_format import LoRAFormat

    original = LoRAFormat.load(artifact)
    try:
        form = LoRAFormat.load(file)
    except AdapterError as error:
        raise CannotServe(field, getattr(error, "reason", str(error))) from error
    if form.weights.keys() != original.weights.keys():
        odd = sorted(form.weights.keys() ^ original.weights.keys())[0]
        raise CannotServe(field, f"adapts other modules than the artifact: {odd} is present in only one of them")
    for module, weights in form.weights.items():
        shapes = {name: array.shape for name, array in weights.arrays.items()}
        if shapes != {name: array.shape for name, array in original.weights[module].arrays.items()}:
            raise CannotServe(field, f"{module} has other shapes than in the artifact")
        if form.scaling(module) != original.scaling(module):
            raise CannotServe(field, f"{module} has another scaling than in the artifact")
