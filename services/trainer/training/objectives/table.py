"""The table of objectives: what the service knows of each before anything is trained. Imports no torch.

Adding one: its name in `training.proto`, its file beside this one with a subclass of `ObjectiveTrainer`, its row here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleet_events import v1
from services.trainer.datasets.records import Kind
from services.trainer.faults import Fault
from services.trainer.training.configuration import Configuration

_HERE = "services.trainer.training.objectives"
_NO_MARGIN = (v1.RankingLoss.RRHF, v1.RankingLoss.LISTWISE)
_SMOOTHED = (v1.PreferenceLoss.ROBUST, v1.PreferenceLoss.EXO_PAIR)


def _no_contradictions(given: Mapping[str, object], configuration: Configuration) -> Iterable[Fault]:  # noqa: ARG001
    return ()


@dataclass(frozen=True)
class ObjectiveRow:
    """One row of the table.

    `trainer` names its `ObjectiveTrainer` as `module:Class`, imported in the training subprocess alone. `kinds` are the
    kinds of data sets that it can be trained on, `live` the kind that is made of live records where a request names no
    data set. `hyperparameters` are those that only objectives which list them read. `sequences` counts the completions
    of a record that are computed together at least: the memory estimate multiplies a batch by it. `contradictions`
    gives what is wrong with the requested hyperparameters in their context.
    """

    name: str
    trainer: str
    kinds: tuple[Kind, ...]
    live: Kind
    hyperparameters: tuple[str, ...] = ()
    sequences: int = 1
    contradictions: Callable[[Mapping[str, object], Configuration], Iterable[Fault]] = _no_contradictions


def objective_named(name: str) -> ObjectiveRow:
    """The row of an objective; empty is the default one. Raises KeyError for a name that is not in the table."""
    return OBJECTIVES[name or Configuration.objective]


def _smoothing(given: Mapping[str, object], configuration: Configuration) -> Iterator[Fault]:
    """TRL reads label smoothing in two losses alone, and one of them cannot be without."""
    fraction = configuration.label_smoothing
    if fraction and configuration.preference_loss not in _SMOOTHED:
        expected = f"no value, or preference_loss {' or '.join(_SMOOTHED)}: {configuration.preference_loss} has none"
        yield Fault("hyperparameters.label_smoothing", given["label_smoothing"], expected)
    if not fraction and configuration.preference_loss == v1.PreferenceLoss.EXO_PAIR:
        expected = "more than 0 with preference_loss exo_pair, for example 0.001 (https://arxiv.org/abs/2402.00856)"
        yield Fault("hyperparameters.label_smoothing", fraction, expected)


def _margin(given: Mapping[str, object], configuration: Configuration) -> Iterator[Fault]:
    if "ranking_margin" in given and configuration.ranking_loss in _NO_MARGIN:
        expected = f"no value: ranking_loss {configuration.ranking_loss} has no margin"
        yield Fault("hyperparameters.ranking_margin", given["ranking_margin"], expected)


OBJECTIVES: dict[str, ObjectiveRow] = {
    row.name: row
    for row in (
        ObjectiveRow(
            name=v1.Objective.SFT,
            trainer=f"{_HERE}.sft:CompletionTrainer",
            kinds=tuple(Kind),
            live=Kind.COMPLETION,
        ),
        ObjectiveRow(
            name=v1.Objective.DPO,
            trainer=f"{_HERE}.dpo:PreferenceTrainer",
            # Rated answers to one prompt are put together as a ranking, and a ranking is taken as pairs.
            kinds=(Kind.PREFERENCE, Kind.RANKING, Kind.RATED),
            live=Kind.PREFERENCE,
            hyperparameters=("beta", "preference_loss", "label_smoothing"),
            sequences=2,
            contradictions=_smoothing,
        ),
        ObjectiveRow(
            name=v1.Objective.RANKING,
            trainer=f"{_HERE}.ranking:RankingTrainer",
            kinds=(Kind.RANKING, Kind.PREFERENCE, Kind.RATED),
            live=Kind.RANKING,
            hyperparameters=("ranking_loss", "ranking_margin"),
            sequences=2,
            contradictions=_margin,
        ),
    )
}
"""Objective by its name."""
