"""Generators: records made from records, each marked as synthetic and with the name of what made it."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from services.trainer.datasets.generators.recipe import BackGeneration, GeneratorRecipe, Paraphrase, Template
from services.trainer.datasets.generators.report import GenerationReport, GeneratorCount
from services.trainer.datasets.records import Kind, Record

if TYPE_CHECKING:
    from services.trainer.datasets.generators.endpoint import Endpoint

__all__ = ["GenerationReport", "GeneratorRecipe", "Unfit", "check", "generate"]


class Unfit(ValueError):
    """A generator cannot work on this data set. Names the field, what it holds and what would be right."""

    def __init__(self, field: str, found: str, expected: str) -> None:
        super().__init__(f"{field}: {found} is refused, expected {expected}")
        self.field, self.found, self.expected = field, found, expected


def check(recipe: GeneratorRecipe, kind: Kind, endpoints: Mapping[str, object]) -> None:
    """Raises `Unfit` for a generator that makes no records of the kind, or names an endpoint that is not there."""
    for number, one in enumerate(recipe.generators):
        field = f"generators.{number}"
        if isinstance(one, Template) and kind not in (Kind.COMPLETION, Kind.CONVERSATION):
            raise Unfit(f"{field}.kind", f"'template' for records of kind {kind.value!r}", "completion or conversation")
        if isinstance(one, BackGeneration):
            if one.makes == "completion" and kind not in (Kind.COMPLETION, Kind.CONVERSATION):
                raise Unfit(
                    f"{field}.makes",
                    f"'completion' for records of kind {kind.value!r}",
                    "prompt: which of several completions is better only people can say",
                )
            if one.endpoint not in endpoints:
                known = ", ".join(sorted(endpoints)) or "one in LORAFLEET_GENERATION_ENDPOINTS, which names none"
                raise Unfit(f"{field}.endpoint", repr(one.endpoint), known)


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
        records: gives the records to work on, anew each time; only such as are trained on and not synthetic.
        endpoints: those that the settings name.
        report: counts as the records are taken.

    Raises:
        EndpointFailed: an endpoint gives no answer.
    """
    from services.trainer.datasets.generators.back_generation import back_generate
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


def _counted(made: Iterator[Record], count: GeneratorCount) -> Iterator[Record]:
    for record in made:
        count.made += 1
        yield record
