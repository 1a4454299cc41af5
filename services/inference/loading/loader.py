"""Takes an adapter from the object store into a slot, and proves its effect before anything is served with it."""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from fleet_events.v1 import Adapter
from fleet_events.v1 import Probe as RecordedProbe
from lora_core.errors import AdapterError
from services.inference.engine_thread import EngineThread
from services.inference.loading.artifact import Artifacts
from services.inference.loading.proof import Exactness, is_compared, probe_ids, recorded_probe
from services.inference.slots.states import LoadFailed, OnDisk, Proof
from services.inference.tokenizer import Vocabulary

if TYPE_CHECKING:
    from lora_core import LoRACard
    from lora_core.engine import ArrowEngine

_REMEMBERED = 10_000
_PROMPTS = 32


class SlotLoader:
    """The `Loader` of this process's engine: object store → disk cache → slot → proof.

    largest: the largest rank, where adapters share the memory of slots by their ranks; None where they do not.
    """

    def __init__(  # noqa: PLR0917
        self,
        artifacts: Artifacts,
        thread: EngineThread,
        engine: "ArrowEngine",
        vocabulary: Vocabulary,
        exactness: Exactness,
        largest: int | None,
    ) -> None:
        self._artifacts = artifacts
        self._thread = thread
        self._engine = engine
        self._vocabulary = vocabulary
        self._exactness = exactness
        self._largest = largest
        self._proved: dict[tuple[str, RecordedProbe | None, bool], Proof] = {}
        # The base model's own answer to a prompt never changes, and most adapters of a family share their prompt.
        self._without = lru_cache(_PROMPTS)(engine.next_logits)

    async def fetch(self, adapter: Adapter) -> OnDisk:
        """The artifact on disk, its digest checked."""
        path = await self._artifacts.fetch(adapter)
        if self._largest is None:
            return OnDisk(path, 1)
        rank = await self._artifacts.max_rank(path) or adapter.artifact.rank
        if rank > self._largest:
            raise LoadFailed("artifact_invalid", f"rank is {rank}, expected at most {self._largest}, the slots' size")
        return OnDisk(path, rank)

    async def load(self, adapter: Adapter, file: OnDisk) -> Proof:
        """Binds the adapter to a slot and proves its effect; a slot is left empty if that fails."""
        card = await self._artifacts.open(adapter, file.path)
        return await self._thread.call(lambda: self._bind(adapter, card))

    async def unload(self, adapter_id: str) -> None:
        """Empties its slot."""
        await self._thread.call(lambda: self._engine.unload(adapter_id))

    def _bind(self, adapter: Adapter, card: "LoRACard") -> Proof:
        try:
            report = self._engine.load(card, adapter.adapter_id)
        except AdapterError as error:
            raise LoadFailed("artifact_invalid", str(error)) from error
        try:
            if report.modules != len(card.weights):
                raise LoadFailed(
                    "partly_bound", f"{report.modules} of its {len(card.weights)} modules were bound to the model"
                )
            return self._prove(adapter, report.modules)
        except BaseException:
            self._engine.unload(adapter.adapter_id)
            raise

    def _prove(self, adapter: Adapter, modules: int) -> Proof:
        recorded = recorded_probe(adapter)
        # The same bytes, checked as they were read, have the same effect each time they come into a slot.
        key = (adapter.artifact.blob.sha256, recorded, is_compared(adapter))
        if key not in self._proved:
            self._proved[key] = self._probe(adapter, recorded, modules)
            if len(self._proved) > _REMEMBERED:
                del self._proved[next(iter(self._proved))]
        return self._proved[key]

    def _probe(self, adapter: Adapter, recorded: RecordedProbe | None, modules: int) -> Proof:
        ids = probe_ids(adapter, self._vocabulary)
        logits = self._engine.next_logits(ids, adapter.adapter_id)
        delta = float(abs(logits - self._without(tuple(ids))).max())
        self._exactness.require_effect(delta)
        if recorded is not None and is_compared(adapter):
            allowed = self._exactness.allowed(recorded)
            for token, expected in zip(recorded.top_ids, recorded.top_logits, strict=False):
                got = float(logits[token]) if token < len(logits) else math.nan
                if not abs(got - expected) <= allowed:
                    raise LoadFailed(
                        "effect_differs",
                        f"the probe prompt's logit of token {token} is {got}, the trainer recorded {expected} "
                        f"(allowed difference {allowed:.3g})",
                    )
        return Proof(modules_bound=modules, max_delta=delta, compared=is_compared(adapter))
