"""Which further forms of an adapter a request may ask for: pure checks, before anything is trained."""

from fleet_events import v1
from services.trainer.configuration import Configuration, Fault


def check_exports(request: v1.TrainingRequested, configuration: Configuration, *, gguf: bool) -> tuple[Fault, ...]:
    """What is wrong with `exports`, whatever the data.

    Args:
        request: may name a data set, whose split `check_split` looks at.
        configuration: what it trains with.
        gguf: whether llama.cpp knows the base model's architecture and the package `gguf` is installed.
    """
    faults: list[Fault] = []
    if "gguf" in request.exports and configuration.method == "dora":
        faults.append(Fault("exports", "gguf", "int8 or int4: llama.cpp has no adapters of method dora"))
    if "gguf" in request.exports and not gguf:
        faults.append(
            Fault("exports", "gguf", "int8 or int4: llama.cpp's adapters are not known for this base model here")
        )
    if request.exports and not request.dataset_id and not configuration.validation_part:
        faults.append(_nothing_to_validate_on(request))
    return tuple(faults)


def check_split(request: v1.TrainingRequested, configuration: Configuration, dataset: v1.Dataset) -> tuple[Fault, ...]:
    """What is wrong with `exports` beside the data set that the request names."""
    if request.exports and not dataset.validation_samples and not configuration.validation_part:
        return (_nothing_to_validate_on(request),)
    return ()


def _nothing_to_validate_on(request: v1.TrainingRequested) -> Fault:
    expected = "none, or hyperparameters.validation_part, or a data set with a validation split: exports are validated"
    return Fault("exports", list(request.exports), expected)
