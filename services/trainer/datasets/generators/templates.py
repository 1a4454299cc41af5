"""Generators that need no model: filled templates, and other ways to ask the same."""

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from services.trainer.datasets.generators.recipe import Paraphrase, Template
from services.trainer.datasets.records import Kind, Message, Record, prompt_messages


def fill(template: Template, kind: Kind) -> Iterator[Record]:
    """The template with every combination of its slots' values, or with so many of them, in the lists' order."""
    names = list(template.slots)
    values = [template.slots[name] for name in names]
    for number, combination in enumerate(_combinations(values, template)):
        filled = dict(zip(names, combination, strict=True))
        yield Record(
            kind=kind,
            prompt=prompt_messages(template.prompt.format_map(filled), system=template.system.format_map(filled)),
            completions=(template.completion.format_map(filled),),
            origin=f"template {template.name}",
            source_id=f"{template.name}-{number}",
            synthetic=True,
        )


def paraphrase(records: Iterable[Record], recipe: Paraphrase) -> Iterator[Record]:
    """Each record again, with its last user message in other forms; which ones depends on seed and record alone."""
    for record in records:
        draw = random.Random(f"{recipe.seed} {record.record_id}")  # noqa: S311 - it draws forms, not secrets
        for form in draw.sample(recipe.forms, min(recipe.per_record, len(recipe.forms))):
            text = form.format_map({"prompt": record.prompt_text})
            yield from reasked(record, text, f"paraphrase {recipe.name}")


def reasked(record: Record, text: str, origin: str) -> Iterator[Record]:
    """The record with another last user message; nothing where it has none. A rating stays where it is the content."""
    last = max((at for at, message in enumerate(record.prompt) if message.role == "user"), default=None)
    if last is None:
        return
    prompt = (*record.prompt[:last], Message("user", text), *record.prompt[last + 1 :])
    rating = record.rating if record.kind is Kind.RATED else None
    yield replace(
        record, prompt=prompt, rating=rating, origin=origin, source_id=record.record_id, synthetic=True, split="train"
    )


def reanswered(record: Record, text: str, origin: str) -> Record:
    """The record with a model's answer. How people rated the former one does not apply to it."""
    return replace(
        record,
        completions=(text,),
        rating=None,
        origin=origin,
        source_id=record.record_id,
        synthetic=True,
        split="train",
    )


def _combinations(values: list[tuple[str, ...]], template: Template) -> Iterator[tuple[str, ...]]:
    total = math.prod(map(len, values))
    if total <= template.at_most:
        yield from itertools.product(*values)
        return
    draw = random.Random(template.seed)  # noqa: S311 - it draws examples, not secrets
    drawn: set[int] = set()
    while len(drawn) < template.at_most:
        drawn.add(draw.randrange(total))
    for number in sorted(drawn):
        rest, picked = number, []
        for options in reversed(values):
            rest, at = divmod(rest, len(options))
            picked.append(options[at])
        yield tuple(reversed(picked))
