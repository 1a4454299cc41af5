"""How long the search in memory takes, beside a plain product and beside the encoding of a query."""

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.report import Row, Samples
from benchmarks.routing_service import QUERIES
from benchmarks.routing_vectors import Draw
from lora_core.embedding import SentenceEmbedder
from services.router.search import SearchIndex
from services.router.settings import RouterSettings

USUAL_THRESHOLD = 0.52
"""Of adapters with centroids, about."""


def rows(embedder: SentenceEmbedder, draw: Draw, sizes: Sequence[tuple[int, int]], repeats: int) -> list[Row]:
    """The search alone, beside one float32 product over the same vectors and beside one embedding, alternating."""
    made = []
    generator = np.random.default_rng(0)
    weight = np.ones(1, dtype=np.float32)
    for adapters, each in sizes:
        index = SearchIndex(embedder.dimension, RouterSettings.model_fields["search_threads"].default)
        whole = np.empty((adapters * each, embedder.dimension), dtype=np.float32)
        for number in range(adapters):
            vectors = whole[number * each : (number + 1) * each]
            vectors[:] = draw(generator, each)
            index.put(str(number), vectors)
            index.set_floor(str(number), USUAL_THRESHOLD)
        taken: dict[str, list[float]] = {"search": [], "one float32 product": [], "embedding the query": []}
        for turn in range(repeats):
            began = time.perf_counter()
            query = embedder.embed([QUERIES[turn % len(QUERIES)]])
            embedded = time.perf_counter()
            found = index.near(query, weight, 2)
            searched = time.perf_counter()
            products = whole @ query[0]
            ended = time.perf_counter()
            assert abs(found[0][1] - products.max()) < 1e-5, "the search is exact"
            for name, seconds in zip(taken, (searched - embedded, ended - searched, embedded - began), strict=True):
                taken[name].append(1000 * seconds)
        mine, *beside = (Samples(tuple(one)) for one in taken.values())
        made.append(
            Row(
                what=f"exact search, {adapters:,} adapters of {each} vectors",
                unit="ms",
                ours=mine.median,
                peers={name: one.median for name, one in zip(list(taken)[1:], beside, strict=True)},
                ratio=mine.median / beside[0].median,
                n=repeats,
                spread=mine.spread,
                note=f"{whole.nbytes / 2**20:,.0f} MiB of vectors",
            )
        )
    return made
