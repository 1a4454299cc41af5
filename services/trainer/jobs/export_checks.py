"""Which further forms of an adapter a request may ask for: pure checks, before anything is trained."""

from collections.abc import Mapping

from fleet_events import v1
from services.trainer.faults import Fault
from services.trainer.training.configuration import Configuration
from services.trainer.training.export_kinds import is_gguf

SUPER_BLOCKS = ("gguf-q6_k", "gguf-q4_k_m")
"""Levels whose own blocks take rows of multiples of 256 numbers."""


def check_exports(
    request: v1.TrainingRequested,
    configuration: Configuration,
    *,
    gguf: bool,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[Fault, ...]:
    """What is wrong with `exports`, with any data.

    Args:
        request: may name a data set, whose split `check_split` looks at.
        configuration: what it trains with.
        gguf: whether llama.cpp knows the base model's architecture and the package `gguf` is installed.
        shapes: linear layers of the base model: name → (out features, in features).
    """
    faults: list[Fault] = []
    requested = [kind for kind in request.exports if is_gguf(kind)]
    for kind in requested:
        if configuration.method == "dora":
            faults.append(Fault("exports", kind, "int8 or int4: llama.cpp has no adapters of method dora"))
        if not gguf:
            faults.append(
                Fault("exports", kind, "int8 or int4: llama.cpp's adapters are not known for this base model here")
            )
        elif kind in SUPER_BLOCKS and shapes is not None and not _fits_super_blocks(configuration, shapes):
            expected = "gguf-q8_0: no target module's input is a multiple of 256, which the blocks of this level need"
            faults.append(Fault("exports", kind, expected))
    if request.exports and not request.dataset_id and not configuration.validation_part:
        faults.append(_nothing_to_validate_on(request))
    return tuple(faults)


def check_split(request: v1.TrainingRequested, configuration: Configuration, dataset: v1.Dataset) -> tuple[Fault, ...]:
    """What is wrong with `exports` beside the data set that the request names."""
    if request.exports and not dataset.validation_samples and not configuration.validation_part:
        return (_nothing_to_validate_on(request),)
    return ()


def _fits_super_blocks(configuration: Configuration, shapes: Mapping[str, tuple[int, int]]) -> bool:
    targets = configuration.target_modules
    widths = [inside for name, (_, inside) in shapes.items() if name.rpartition(".")[2] in targets]
    return any(width % 256 == 0 for width in widths)


def _nothing_to_validate_on(request: v1.TrainingRequested) -> Fault:
    expected = "none, or hyperparameters.validation_part, or a data set with a validation split: exports are validated"
    return Fault("exports", list(request.exports), expected)
