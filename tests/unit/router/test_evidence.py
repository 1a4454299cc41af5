"""What texts make of an adapter."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from services.router.evidence import Kind, Vectors, of_texts, parts_of


class Words:
    """Vectors of a text's words, so that texts with the same words are alike."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("description", "parts"),
    [
        ("Recipes", ["Recipes"]),
        (
            "Bank accounts: balance, transfers and paying bills.",
            [
                "Bank accounts: balance, transfers and paying bills.",
                "Bank accounts",
                "balance",
                "transfers",
                "paying bills",
            ],
        ),
        ("Recht und Verträge; Fristen", ["Recht und Verträge; Fristen", "Recht", "Verträge", "Fristen"]),
        ("Version 1.5 of 3,000 parts", ["Version 1.5 of 3,000 parts"]),
    ],
)
def test_a_description_is_taken_apart_at_its_marks_and_conjunctions(description: str, parts: list[str]) -> None:
    assert parts_of(description) == parts


async def test_a_description_alone_is_compared_by_its_parts_and_calibrates_nothing() -> None:
    found = await of_texts(Words(), "Bank accounts: balance, transfers", ())
    assert found is not None
    assert (found.kind, len(found.vectors), len(found.nearness)) == (Kind.DESCRIPTION, 4, 0)


async def test_examples_are_each_compared_with_the_others() -> None:
    examples = [f"pay bill {number}" for number in range(9)]
    found = await of_texts(Words(), "banking", examples)
    assert found is not None
    assert (found.kind, len(found.vectors), len(found.nearness)) == (Kind.EXAMPLES, 10, 9)
    assert found.nearness.max() < 0.999
    few = await of_texts(Words(), "banking", examples[:7])
    assert few is not None
    assert len(few.nearness) == 0


async def test_nothing_to_go_by_is_no_evidence() -> None:
    assert await of_texts(Words(), "", ()) is None
