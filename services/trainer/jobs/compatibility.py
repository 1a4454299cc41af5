"""Hyperparameters that do not go together, each with what would be right."""

from collections.abc import Iterator

from fleet_events import v1
from services.trainer.faults import Fault
from services.trainer.training.configuration import Configuration

OF_OBJECTIVE = {
    "beta": "dpo",
    "preference_loss": "dpo",
    "label_smoothing": "dpo",
    "ranking_loss": "ranking",
    "ranking_margin": "ranking",
}
"""Hyperparameters that one objective alone reads."""
_OF_VALIDATION = ("validation_steps", "early_stopping_patience")
_NO_MARGIN = ("rrhf", "listwise")
_SMOOTHED = ("robust", "exo_pair")


def contradictions(request: v1.TrainingRequested, configuration: Configuration) -> Iterator[Fault]:
    """What was asked for and could have no effect, or cannot be had together."""
    asked = _asked(request)
    for name, objective in OF_OBJECTIVE.items():
        if name in asked and configuration.objective != objective:
            expected = f"nothing: it belongs to objective {objective}, and this one is {configuration.objective}"
            yield Fault(f"hyperparameters.{name}", asked[name], expected)
    if configuration.objective == "ranking" and "ranking_margin" in asked and configuration.ranking_loss in _NO_MARGIN:
        expected = f"nothing: ranking_loss {configuration.ranking_loss} has no margin"
        yield Fault("hyperparameters.ranking_margin", asked["ranking_margin"], expected)
    if configuration.objective == "dpo":
        yield from _smoothing(asked, configuration)
    processes, batch = configuration.processes, configuration.batch_size
    micro = configuration.micro_batch_size
    if micro is not None and micro > batch // processes:
        expected = f"at most {max(1, batch // processes)}, a process's part of batch_size {batch}"
        yield Fault("hyperparameters.micro_batch_size", micro, expected)
    if processes > 1 and (batch % processes or batch < 2 * processes):
        # Two rows a process, so that none is without one where an epoch's batches come out smaller than asked.
        expected = f"a divisor of batch_size {batch} that leaves each process two samples of a batch or more"
        yield Fault("hyperparameters.processes", configuration.processes, expected)


def _smoothing(asked: dict[str, object], configuration: Configuration) -> Iterator[Fault]:
    """TRL reads label smoothing in two losses alone, and one of them cannot be without."""
    part = configuration.label_smoothing
    if part and configuration.preference_loss not in _SMOOTHED:
        expected = f"nothing, or preference_loss {' or '.join(_SMOOTHED)}: {configuration.preference_loss} has none"
        yield Fault("hyperparameters.label_smoothing", asked["label_smoothing"], expected)
    if not part and configuration.preference_loss == "exo_pair":
        expected = "more than 0 with preference_loss exo_pair, for example 0.001 (https://arxiv.org/abs/2402.00856)"
        yield Fault("hyperparameters.label_smoothing", part, expected)


def unvalidated(request: v1.TrainingRequested, *, split: bool) -> Iterator[Fault]:
    """What needs validation where nothing validates. `split`: whether the data set has validation records."""
    asked = _asked(request)
    if split or asked.get("validation_part"):
        return
    for name in _OF_VALIDATION:
        if name in asked:
            expected = "validation_part beside it, or a data set with a validation split: else nothing is validated"
            yield Fault(f"hyperparameters.{name}", asked[name], expected)


def asks_for_size(request: v1.TrainingRequested) -> bool:
    """Whether it says how large its batches are. Unasked, the longest sample is a bound that few data sets reach."""
    return not {"batch_size", "micro_batch_size", "max_length"}.isdisjoint(_asked(request))


def _asked(request: v1.TrainingRequested) -> dict[str, object]:
    return request.hyperparameters.model_dump(by_alias=False, exclude_none=True) if request.hyperparameters else {}
