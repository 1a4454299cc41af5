"""Generators: records made from records, each marked as synthetic and with the name of what made it."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from services.trainer.datasets.build_fault import BuildFault, CannotBuild
from services.trainer.datasets.generators.recipe import (
    Asking,
    BackGeneration,
    Distillation,
    GeneratorRecipe,
    Paraphrase,
    Template,
)
from services.trainer.datasets.generators.report import GenerationReport, GeneratorCount
from services.trainer.datasets.records import Kind, Record

if TYPE_CHECKING:
    from services.trainer.datasets.generators.endpoint import Endpoint

__all__ = ["GenerationReport", "GeneratorRecipe", "check", "generate"]


def check(recipe: GeneratorRecipe, kind: Kind, endpoints: Mapping[str, object]) -> None:
    """Raises `CannotBuild` for a generator that makes no records of the kind, or names an endpoint that is unknown."""
    for number, one in enumerate(recipe.generators):
        field = f"generators.{number}"
        if isinstance(one, Template) and kind not in (Kind.COMPLETION, Kind.CONVERSATION):
            raise _unfit(
                f"{field}.kind", f"'template' for records of kind {kind.value!r}", "completion or conversation"
            )
        if isinstance(one, Asking):
            completes = isinstance(one, Distillation) or one.makes == "completion"
            if completes and kind not in (Kind.COMPLETION, Kind.CONVERSATION):
                raise _unfit(
                    f"{field}.makes" if isinstance(one, BackGeneration) else f"{field}.kind",
                    f"'completion' for records of kind {kind.value!r}",
                    "prompt: which of several completions is better only people can decide",
                )
            if one.endpoint not in endpoints:
                known = ", ".join(sorted(endpoints)) or "one in LORAFLEET_GENERATION_ENDPOINTS, which names none"
                raise _unfit(f"{field}.endpoint", repr(one.endpoint), known)


def generate(
    recipe: GeneratorRecipe,
    kind: Kind,
    records: Callable[[], Iterator[Record]],
    endpoints: "Mapping[str, Endpoint]",
    report: GenerationReport,
) -> Iterator[Record]:
    """What the recipe's generators make, one generator after the other.

    Args:
        recipe: checked by `check`.
        kind: of the data set.
        records: gives the records to work on, from the start each time; only such as are trained on and not synthetic.
        endpoints: those that the settings name.
        report: counts as the records are taken.

    Raises:
        EndpointFailed: an endpoint gives no answer.
    """
    from services.trainer.datasets.generators.back_generation import back_generate
    from services.trainer.datasets.generators.distillation import distil
    from services.trainer.datasets.generators.endpoint import ChatClient
    from services.trainer.datasets.generators.templates import fill, paraphrase

    for one in recipe.generators:
        count = report.of(one.name)
        match one:
            case Template():
                yield from _counted(fill(one, kind), count)
            case Paraphrase():
                yield from _counted(paraphrase(records(), one), count)
            case BackGeneration():
                with ChatClient(endpoints[one.endpoint], one.model) as client:
                    yield from back_generate(records(), one, client, count)
            case Distillation():
                with ChatClient(endpoints[one.endpoint], one.model) as client:
                    yield from distil(records(), one, client, count)


def _counted(made: Iterator[Record], count: GeneratorCount) -> Iterator[Record]:
    for record in made:
        count.made += 1
        yield record


def _unfit(field: str, found: str, expected: str) -> CannotBuild:
    return CannotBuild(BuildFault(field=field, value=found, expected=expected))
