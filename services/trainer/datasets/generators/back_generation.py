"""Records that a language model makes from records: a new prompt for an answer, or an answer of its own to a prompt."""

import itertools
from collections.abc import Iterable, Iterator

from fleet_kit.text_fingerprints import exact_form
from services.trainer.datasets.generators.endpoint import Answer, ChatClient, Question
from services.trainer.datasets.generators.recipe import BackGeneration
from services.trainer.datasets.generators.report import GeneratorCount
from services.trainer.datasets.generators.templates import reanswered, reasked
from services.trainer.datasets.records import Record

_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "`": "`"}


def back_generate(
    records: Iterable[Record], recipe: BackGeneration, client: ChatClient, count: GeneratorCount
) -> Iterator[Record]:
    """New records in the order of those they come from; `count` counts what became of the answers.

    Raises:
        EndpointFailed: the endpoint gives no more answers.
    """
    count.model = client.model
    prompted, sources = itertools.tee(itertools.islice(records, recipe.at_most))
    questions = (_question(record, recipe) for record in prompted)
    origin = f"back_generation {recipe.name} with {client.model}"
    for record, answer in zip(sources, client.answers(questions), strict=True):
        count.requests += 1
        text = _unquoted(answer.text)
        if not _usable(text, record, recipe, answer, count):
            continue
        for made in _made(record, text, recipe, origin):
            count.made += 1
            yield made


def _question(record: Record, recipe: BackGeneration) -> Question:
    values = {"prompt": record.prompt_text, "completion": record.completions[0] if record.completions else ""}
    return Question(recipe.instruction.format_map(values), recipe.temperature, recipe.max_tokens, recipe.seed)


def _made(record: Record, text: str, recipe: BackGeneration, origin: str) -> Iterator[Record]:
    if recipe.makes == "prompt":
        yield from reasked(record, text, origin)
    else:
        yield reanswered(record, text, origin)


def _usable(text: str, record: Record, recipe: BackGeneration, answer: Answer, count: GeneratorCount) -> bool:
    was = (record.prompt_text,) if recipe.makes == "prompt" else record.completions
    if answer.cut:
        count.cut += 1
    elif not text:
        count.blank += 1
    elif exact_form(text) in map(exact_form, was):
        count.equal += 1
    else:
        return True
    return False


def _unquoted(text: str) -> str:
    """Without the quotation marks that models like to put around a text they write."""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        return text[1:-1].strip()
    return text
