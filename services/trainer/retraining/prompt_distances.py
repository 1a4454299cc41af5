"""How far recorded prompts are from what the active version was trained on: measured now and then, kept as numbers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fleet_events import v1
from fleet_kit.errors import BlobCorrupt, BlobMissing
from lora_core.centroids import Vectors
from lora_core.embedding_thread import EmbeddingThread
from lora_core.errors import CorruptAdapter
from lora_core.routing_profile import RoutingProfile
from services.trainer.retraining.context import RetrainingContext
from services.trainer.retraining.situation import Distances
from services.trainer.retraining.store import evidence
from services.trainer.retraining.store.evidence import KnownActive
from services.trainer.training.routing_profile import MOST_CHARACTERS
from services.trainer.work_folder import work_folder

AT_ONCE = 256
"""Prompts that are embedded in one evaluation: seconds of one thread."""
MOST_RECENT = 5_000
"""Newest distances that are looked at: of a version with more, the oldest count least."""
FEWEST_HELD_OUT = 10


class PromptDistances:
    """Measures with the trainer's embedding model, which is loaded when the first domain with a drift rule needs it."""

    def __init__(self, folder: Path | None) -> None:
        self._embedder = EmbeddingThread(folder, threads=1) if folder is not None else None
        self._profile: tuple[str, RoutingProfile] | None = None

    def close(self) -> None:
        """End the embedding thread."""
        if self._embedder is not None:
            self._embedder.close()

    async def measure(self, domain: str, active: KnownActive, service: RetrainingContext) -> Distances:
        """Measure the newest prompts that have no distance yet, and give all that count."""
        adapter_id, since = active.version.adapter_id, active.version.learned_until
        if self._embedder is None:
            return Distances(unmeasured="the trainer has no embedding model (LORAFLEET_EMBEDDING_MODEL)")
        if active.routing is None:
            return Distances(unmeasured=f"{adapter_id} came without vectors of its training prompts")
        await self._embedder.load()
        if active.routing.embedded_by != self._embedder.identity:
            made_by = active.routing.embedded_by
            return Distances(unmeasured=f"{adapter_id} was embedded by {made_by}, not by {self._embedder.identity}")
        try:
            profile = await self._profile_of(active.routing, service)
        except (BlobMissing, BlobCorrupt, CorruptAdapter) as error:
            return Distances(unmeasured=f"the vectors of {adapter_id} cannot be read: {error}")
        if len(profile.held_out) < FEWEST_HELD_OUT:
            detail = f"{adapter_id} has {len(profile.held_out)} held-out prompts, {FEWEST_HELD_OUT} are needed"
            return Distances(unmeasured=detail)
        async with service.db.acquire(timeout=5) as connection:
            fresh = await evidence.unmeasured_prompts(connection, domain, adapter_id, since, AT_ONCE)
        if fresh:
            vectors = await self._embedder.embed([one.prompt.strip()[-MOST_CHARACTERS:] for one in fresh])
            measured = list(zip(fresh, distances_of(vectors, profile.centroids), strict=True))
            async with service.transaction() as tx:
                await evidence.add_sample_distances(tx.connection, adapter_id, measured)
                await evidence.add_answer_distances(tx.connection, adapter_id, measured)
        async with service.db.acquire(timeout=5) as connection:
            recorded = await evidence.distances(connection, adapter_id, since, MOST_RECENT)
        return Distances(recorded, tuple(distances_of(profile.held_out, profile.centroids)))

    async def _profile_of(self, routing: v1.RoutingProfile, service: RetrainingContext) -> RoutingProfile:
        if self._profile is None or self._profile[0] != routing.blob.sha256:
            with work_folder(service.settings.cache_dir) as folder:
                file = await service.blobs.fetch(routing.blob, folder / "routing.safetensors")
                self._profile = routing.blob.sha256, await asyncio.to_thread(RoutingProfile.load, file)
        return self._profile[1]


def distances_of(vectors: Vectors, centroids: Vectors) -> Sequence[float]:
    """Cosine distance of each vector, [n, dimension], from the centroid nearest to it: n numbers, 0 to 2."""
    if not len(vectors):
        return []
    return [float(one) for one in 1 - np.max(vectors @ centroids.T, axis=1)]
