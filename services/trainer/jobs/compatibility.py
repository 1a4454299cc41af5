"""Hyperparameters that do not go together, each with what would be right."""

from collections.abc import Iterator

from fleet_events import v1
from services.trainer.faults import Fault
from services.trainer.training.configuration import Configuration
from services.trainer.training.objectives.table import OBJECTIVES, objective_named

_OF_VALIDATION = ("validation_steps", "early_stopping_patience")


def contradictions(request: v1.TrainingRequested, configuration: Configuration) -> Iterator[Fault]:
    """Requested values that could have no effect, or exclude each other."""
    given = _given(request)
    for name, objectives in _readers().items():
        if name in given and configuration.objective not in objectives:
            expected = f"no value: only objective {' or '.join(objectives)} reads it, and this one is "
            yield Fault(f"hyperparameters.{name}", given[name], expected + configuration.objective)
    yield from objective_named(configuration.objective).contradictions(given, configuration)
    processes, batch = configuration.processes, configuration.batch_size
    micro = configuration.micro_batch_size
    if micro is not None and micro > batch // processes:
        expected = f"at most {max(1, batch // processes)}, a process's part of batch_size {batch}"
        yield Fault("hyperparameters.micro_batch_size", micro, expected)
    if processes > 1 and (batch % processes or batch < 2 * processes):
        # Two rows a process, so that none is without one where an epoch's batches come out smaller than requested.
        expected = f"a divisor of batch_size {batch} that leaves each process two samples of a batch or more"
        yield Fault("hyperparameters.processes", configuration.processes, expected)


def unvalidated(request: v1.TrainingRequested, *, split: bool) -> Iterator[Fault]:
    """What needs validation where nothing validates. `split`: whether the data set has validation records."""
    given = _given(request)
    if split or given.get("validation_part"):
        return
    for name in _OF_VALIDATION:
        if name in given:
            expected = "validation_part beside it, or a data set with a validation split: else nothing is validated"
            yield Fault(f"hyperparameters.{name}", given[name], expected)


def asks_for_size(request: v1.TrainingRequested) -> bool:
    """Whether it sets how large its batches are. Unset, the longest sample is a bound that few data sets reach."""
    return not {"batch_size", "micro_batch_size", "max_length"}.isdisjoint(_given(request))


def _readers() -> dict[str, list[str]]:
    """Hyperparameters that only some objectives read, each with their names."""
    readers: dict[str, list[str]] = {}
    for objective in OBJECTIVES.values():
        for name in objective.hyperparameters:
            readers.setdefault(name, []).append(objective.name)
    return readers


def _given(request: v1.TrainingRequested) -> dict[str, object]:
    return request.hyperparameters.model_dump(by_alias=False, exclude_none=True) if request.hyperparameters else {}
