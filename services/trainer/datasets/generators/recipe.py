"""What to generate, how much of it, and from what: every knob with its range."""

import string
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.trainer.datasets.knobs import Knobs

Slot = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
MAX_RECORDS = 1_000_000


def slots_of(template: str) -> set[str]:
    """Names of the `{slots}` in a template; raises ValueError for one that is not plain. `{{` is a brace."""
    found: set[str] = set()
    for _, name, form, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise ValueError(f"{{{name}}} is no slot, expected a plain name in braces, or {{{{ for a brace")
        found.add(name)
    return found


FLEET = "inference"
"""Name of the endpoint that is the fleet's own inference."""


class Template(Knobs):
    """Variation: a prompt and a completion with `{slots}`, filled with values from lists.

    All combinations are made, in the lists' order, or `at_most` of them, drawn with `seed`.
    """

    kind: Literal["template"] = "template"
    name: Slot
    prompt: Annotated[str, Field(min_length=1, max_length=20_000)]
    completion: Annotated[str, Field(min_length=1, max_length=20_000)]
    system: Annotated[str, Field(max_length=20_000)] = ""
    slots: dict[Slot, Annotated[tuple[str, ...], Field(min_length=1, max_length=10_000)]]
    at_most: Annotated[int, Field(ge=1, le=MAX_RECORDS)] = 10_000
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _filled(self) -> Self:
        used = slots_of(self.prompt) | slots_of(self.completion) | slots_of(self.system)
        if missing := sorted(used - self.slots.keys()):
            raise ValueError(f"slots: none is named {missing[0]!r}, expected one for each slot of the template")
        if unused := sorted(self.slots.keys() - used):
            raise ValueError(f"slots.{unused[0]}: the template does not use it, expected {{{unused[0]}}} in a text")
        return self


class Paraphrase(Knobs):
    """Other ways to ask: each `form` holds `{prompt}` and is put in the place of a record's last user message.

    The completions stay. Of each record at most `per_record` forms are used, drawn with `seed`.
    """

    kind: Literal["paraphrase"] = "paraphrase"
    name: Slot
    forms: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=2000)], ...], Field(min_length=1, max_length=1000)
    ]
    per_record: Annotated[int, Field(ge=1, le=100)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _holds_the_prompt(self) -> Self:
        for number, form in enumerate(self.forms):
            if slots_of(form) != {"prompt"}:
                raise ValueError(
                    f"forms.{number}: {form!r} is refused, expected a text with {{prompt}} and no other slot"
                )
        return self


REWRITE = "Rewrite the following question in other words. Answer with the new question only.\n\n{prompt}"


class BackGeneration(Knobs):
    """A language model writes a new prompt, or a new completion, for each record.

    `makes` is what is new: `prompt` from the record's text (by default in other words), `completion` as the model's
    own answer to the prompt. `instruction` may hold `{prompt}` and `{completion}`. `endpoint` is one that the
    settings of the trainer name (`LORAFLEET_GENERATION_ENDPOINTS`). A new text that equals the old one is dropped.
    """

    kind: Literal["back_generation"] = "back_generation"
    name: Slot
    endpoint: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] = FLEET
    model: Annotated[str, Field(max_length=200)] = ""
    """Empty is the endpoint's own default, as the settings name it."""
    makes: Literal["prompt", "completion"] = "prompt"
    instruction: Annotated[str, Field(min_length=1, max_length=20_000)] = REWRITE
    at_most: Annotated[int, Field(ge=1, le=MAX_RECORDS)] = 1000
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _asks_of_the_record(self) -> Self:
        slots = slots_of(self.instruction)
        if not slots or slots - {"prompt", "completion"}:
            raise ValueError("instruction: expected {prompt} or {completion} in it, and no other slot")
        return self


class Distillation(Knobs):
    """A served model answers each record's prompt anew, in the place of the answers that the record had.

    Records that are only validated with keep theirs. The prompts are asked greedily, with all that precedes them.
    """

    kind: Literal["distillation"] = "distillation"
    name: Slot = "distillation"
    endpoint: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] = FLEET
    model: Annotated[str, Field(min_length=1, max_length=200)]
    at_most: Annotated[int, Field(ge=1, le=MAX_RECORDS)] = 20_000
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = 512


Asking = BackGeneration | Distillation
"""Generators that ask a served model."""
Generator = Annotated[Template | Paraphrase | BackGeneration | Distillation, Field(discriminator="kind")]


class GeneratorRecipe(Knobs):
    """The generators, in the order in which their records follow those of the sources."""

    generators: Annotated[tuple[Generator, ...], Field(max_length=50)] = ()

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        names = [one.name for one in self.generators]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"generators: the name {twice[0]!r} is given twice, expected each name once")
        return self

    @property
    def replaces(self) -> bool:
        """Whether the records that are trained on give way to what is made of them."""
        return any(isinstance(one, Distillation) for one in self.generators)
