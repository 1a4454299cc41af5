"""Rated answers to one prompt, as what preferences are learned from."""

from collections.abc import Iterable

from services.trainer.datasets.records import Kind, Record


def ranked(records: Iterable[Record]) -> list[Record]:
    """The records, with rated ones of one prompt put together as a ranking, best first.

    Of equally rated answers to a prompt the one with the lower record id counts, since neither is known to be better; a
    prompt all of whose answers are rated alike ranks nothing and is left out. Other kinds stay as they are.
    """
    others: list[Record] = []
    rated: dict[str, list[Record]] = {}
    for record in records:
        if record.kind is Kind.RATED:
            rated.setdefault(record.prompt_key, []).append(record)
        else:
            others.append(record)
    return [*others, *(one for answers in rated.values() if (one := _ranking(answers)))]


def _ranking(answers: list[Record]) -> Record | None:
    by_rating: dict[float, Record] = {}
    for answer in sorted(answers, key=lambda one: one.record_id):
        if answer.rating is not None:
            by_rating.setdefault(answer.rating, answer)
    if len(by_rating) < 2:
        return None
    best_first = [by_rating[rating] for rating in sorted(by_rating, reverse=True)]
    first = best_first[0]
    return Record(
        kind=Kind.RANKING,
        prompt=first.prompt,
        completions=tuple(one.completions[0] for one in best_first),
        origin=first.origin,
        synthetic=any(one.synthetic for one in best_first),
        split=first.split,
        subjects=tuple(sorted({subject for one in best_first for subject in one.subjects})),
    )
