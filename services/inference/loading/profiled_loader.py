"""Serves adapters in the storage that the profile of their type and device allows, where their quality bears it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from fleet_events.v1 import Adapter
from lora_core import LoRAFormat
from lora_core.errors import AdapterError, InvalidAdapter
from lora_core.profiles import Device, QuantisationProfile, profile_of
from services.inference.engine_thread import EngineThread
from services.inference.loading.artifact import Artifacts
from services.inference.loading.proof import probe_ids
from services.inference.slots.states import OnDisk, Proof
from services.inference.slots.transfers import Loader
from services.inference.tokenizer import Vocabulary

if TYPE_CHECKING:
    from lora_core import LoRACard
    from lora_core.engine import ArrowEngine

log = structlog.get_logger()
EXAMPLES = 8
"""Example prompts of an adapter that are run beside its probe prompt."""
LEAST_EFFECT = 0.5
"""Part of its effect on the probe prompt that a compressed adapter must keep."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """An adapter's compressed file, made by this process from the verified artifact; known by its content digest."""

    file: OnDisk
    digest: str
    proof: Proof


class ProfiledLoader:
    """As the loader that it is given, which proves the artifact itself; then the compressed one may take its place.

    Measuring needs one slot of the engine beside those that adapters are in. `types`: family → adapter type.
    """

    def __init__(  # noqa: PLR0917
        self,
        plain: Loader,
        artifacts: Artifacts,
        thread: EngineThread,
        engine: "ArrowEngine",
        vocabulary: Vocabulary,
        device: Device,
        types: Mapping[str, str],
    ) -> None:
        self._plain = plain
        self._artifacts = artifacts
        self._thread = thread
        self._engine = engine
        self._vocabulary = vocabulary
        self._device: Device = device
        self._types = types
        self._made: dict[str, Compressed] = {}

    async def fetch(self, adapter: Adapter) -> OnDisk:
        """The artifact on disk, its digest checked; it need not be there where the compressed one is."""
        made = self._made.get(adapter.artifact.blob.sha256)
        if made is not None and made.file.path.exists():
            return made.file
        return await self._plain.fetch(adapter)

    async def load(self, adapter: Adapter, file: OnDisk) -> Proof:
        """Binds what its profile allows; a slot is left empty if the artifact fails its proof."""
        if (made := self._made.get(adapter.artifact.blob.sha256)) is not None:
            if (card := await asyncio.to_thread(_reopened, made)) is not None:
                await self._thread.call(lambda: self._engine.load(card, adapter.adapter_id))
                return made.proof
            del self._made[adapter.artifact.blob.sha256]
            file = await self._plain.fetch(adapter)
        proof = await self._plain.load(adapter, file)
        whole = await self._artifacts.open(adapter, file.path)
        kind = self._types.get(adapter.family) or whole.metadata.get("adapter_type", "")
        profile = profile_of(kind, self._device)
        if profile.storage == "plain":
            return proof
        return await self._thread.call(lambda: self._compress(adapter, whole, file.size, proof, profile))

    async def unload(self, adapter_id: str) -> None:
        """Empties its slot."""
        await self._plain.unload(adapter_id)

    def _compress(
        self, adapter: Adapter, whole: "LoRACard", size: int, proof: Proof, profile: QuantisationProfile
    ) -> Proof:
        """In the engine's thread, between two steps: no request is served with one and then the other."""
        from lora_core.compression_quality import compress

        sha256 = adapter.artifact.blob.sha256
        path = self._artifacts.cache.path(sha256).with_suffix(f".{profile.storage}.arrow")
        self._engine.unload(adapter.adapter_id)
        card = whole
        try:
            made = compress(whole, path, profile, self._engine, self._prompts(adapter))
            if made.difference.logit > LEAST_EFFECT * proof.max_delta:
                raise InvalidAdapter(
                    "change of a logit",
                    made.difference.logit,
                    f"at most {LEAST_EFFECT:g} of its effect {proof.max_delta:g}",
                )
            card = LoRAFormat.load(path)
            proof = replace(proof, storage=profile.storage, agreement=made.difference.agreement)
            self._made[sha256] = Compressed(OnDisk(path, size), made.digest, proof)
        except AdapterError as error:
            proof = replace(proof, not_compressed=str(error))
            log.info(
                "adapter_not_compressed", adapter_id=adapter.adapter_id, storage=profile.storage, reason=str(error)
            )
        self._engine.load(card, adapter.adapter_id)
        return proof

    def _prompts(self, adapter: Adapter) -> list[list[int]]:
        texts = [self._vocabulary.of_text(text)[0] for text in adapter.example_prompts[:EXAMPLES] if text.strip()]
        return [probe_ids(adapter, self._vocabulary), *texts]


def _reopened(made: Compressed) -> "LoRACard | None":
    try:
        card = LoRAFormat.load(made.file.path)
    except AdapterError:
        return None
    return card if card.digest == made.digest else None
