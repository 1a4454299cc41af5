"""A few prompts of a data set, which show the router what the adapter is used for."""

from collections.abc import Iterable
from itertools import zip_longest

from services.trainer.datasets.records import Record

MOST = 64
MOST_CHARACTERS = 500


def prompts_about_nobody(records: Iterable[Record]) -> tuple[str, ...]:
    """The examples of records that name no person: they get into events that are kept for good."""
    return example_prompts((one.prompt_text, one.completions[0]) for one in records if not one.subjects)


def example_prompts(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Up to `MOST` prompts of (prompt, answer): one of each answer first, then further ones of the same answers.

    The data set's order is that of digests, so that within an answer the first are a fair draw.
    """
    by_answer: dict[str, list[str]] = {}
    for prompt, answer in pairs:
        of_answer = by_answer.setdefault(answer, [])
        if len(of_answer) < MOST:
            of_answer.append(prompt[:MOST_CHARACTERS])
    rounds = zip_longest(*by_answer.values())
    prompts = dict.fromkeys(prompt for each in rounds for prompt in each if prompt)
    return tuple(prompts)[:MOST]
