"""Records whose answers are a served model's own, in the place of those that were there."""

import itertools
from collections.abc import Iterable, Iterator

from services.trainer.datasets.generators.endpoint import ChatClient, Question
from services.trainer.datasets.generators.recipe import Distillation
from services.trainer.datasets.generators.report import GeneratorCount
from services.trainer.datasets.generators.templates import reanswered
from services.trainer.datasets.records import Record


def distil(
    records: Iterable[Record], recipe: Distillation, client: ChatClient, count: GeneratorCount
) -> Iterator[Record]:
    """The records with the model's answer to their whole prompt; without those that it answers blank or cut.

    Raises:
        EndpointFailed: the endpoint gives no more answers.
    """
    count.model = client.model
    prompted, sources = itertools.tee(itertools.islice(records, recipe.at_most))
    questions = (_question(record, recipe) for record in prompted)
    for record, answer in zip(sources, client.answers(questions), strict=True):
        count.requests += 1
        if answer.cut or not answer.text:
            count.cut += answer.cut
            count.blank += not answer.cut
            continue
        count.made += 1
        yield reanswered(record, answer.text, f"distilled from {client.model}")


def _question(record: Record, recipe: Distillation) -> Question:
    turns = tuple((message.role, message.content) for message in record.prompt)
    return Question(record.prompt_text, 0.0, recipe.max_tokens, 0, turns)
