"""What an adapter is recognised by: vectors, and how near its own queries come to them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lora_core.routing_profile import RoutingProfile

Vectors = NDArray[np.float32]

ENOUGH = 8
"""Number of own prompts from which their similarities predict the next one's."""

_PARTS = re.compile(r"[,;:.]\s+|\s(?:and|or|und|oder)\s|\.$")


class Kind(StrEnum):
    """Where vectors come from, best first."""

    CENTROIDS = "centroids"
    """Of all its training prompts."""
    EXAMPLES = "examples"
    """A few prompts."""
    DESCRIPTION = "description"
    """Its written description, and each part of that."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """`vectors`: [n, dimension] of length 1. `nearness`: for each of the adapter's own prompts that none of the vectors
    is of, the cosine similarity with the nearest vector; empty where there are no such prompts."""

    kind: Kind
    vectors: Vectors
    nearness: Vectors


class Embeds(Protocol):
    """What turns texts into vectors, [texts, dimension] of length 1."""

    async def embed(self, texts: Sequence[str], /) -> Vectors: ...


def of_profile(profile: RoutingProfile) -> Evidence:
    """The centroids, and how near the prompts come that were held out."""
    nearness = (profile.held_out @ profile.centroids.T).max(axis=1, initial=-1.0)
    return Evidence(Kind.CENTROIDS, profile.centroids, np.asarray(nearness, dtype=np.float32))


async def of_texts(embedder: Embeds, description: str, examples: Sequence[str]) -> Evidence | None:
    """Description and examples; None where there is no text.

    A description alone is compared by its parts too: on CLINC150 with ten descriptions the right one is the nearest for
    80 % of `val`, by whole descriptions for 65 %.
    """
    if examples:
        vectors = await embedder.embed([*examples, *([description] if description else [])])
        return Evidence(Kind.EXAMPLES, vectors, _left_out(vectors, len(examples)))
    if not description:
        return None
    vectors = await embedder.embed(parts_of(description))
    return Evidence(Kind.DESCRIPTION, vectors, np.zeros(0, dtype=np.float32))


def parts_of(description: str) -> list[str]:
    """The description, and what stands between its commas, full stops, colons and conjunctions."""
    parts = [part.strip(" .,;:") for part in _PARTS.split(description)]
    return list(dict.fromkeys([description, *[part for part in parts if part]]))


def _left_out(vectors: Vectors, examples: int) -> Vectors:
    """Each example against all texts but itself."""
    if examples < ENOUGH:
        return np.zeros(0, dtype=np.float32)
    similarity = vectors[:examples] @ vectors.T
    similarity[np.arange(examples), np.arange(examples)] = -1
    return np.asarray(similarity.max(axis=1), dtype=np.float32)
