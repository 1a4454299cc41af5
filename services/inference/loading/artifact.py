"""An adapter's artifact on this machine: fetched by digest, opened, and held against what is registered and served."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleet_events.v1 import Adapter
from fleet_kit.errors import BlobCorrupt, BlobMissing
from fleet_kit.faults import TRANSIENT
from lora_core import LoRAFormat, check_card
from lora_core.errors import AdapterError, AdapterNotFound
from services.inference.loading.cache import DiskCache
from services.inference.resolution import Base
from services.inference.slots.states import ARTIFACT_GONE, LoadFailed

if TYPE_CHECKING:
    from lora_core import LoRACard


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Artifacts for one base model, whose layers that can carry LoRA have these `shapes`, (out, in) features."""

    cache: DiskCache
    shapes: Mapping[str, tuple[int, int]]
    base: Base

    async def fetch(self, adapter: Adapter) -> Path:
        """The artifact on disk, its digest checked. Raises LoadFailed."""
        try:
            return await self.cache.get(adapter.artifact.blob)
        except BlobCorrupt as error:
            raise LoadFailed("artifact_corrupt", str(error)) from error
        except BlobMissing as error:
            raise LoadFailed("artifact_missing", str(error)) from error
        except TRANSIENT as error:
            reason = f"the object store is unavailable ({type(error).__name__})"
            raise LoadFailed("object_store_unavailable", reason, transient=True) from error

    async def max_rank(self, path: Path) -> int | None:
        """The largest rank of any module, which may be more than is registered; None where `open` will refuse it."""
        try:
            return await asyncio.to_thread(LoRAFormat.max_rank, path)
        except AdapterError:
            return None

    async def open(self, adapter: Adapter, path: Path) -> "LoRACard":
        """The artifact's card, which fits the base model and the registered rank. Raises LoadFailed."""
        if adapter.base_model.revision != self.base.revision:
            raise LoadFailed(
                "incompatible_base_model",
                f"it needs base model revision {adapter.base_model.revision}, loaded is {self.base.revision}",
            )
        card = await asyncio.to_thread(self._read, path)
        if card.rank != adapter.artifact.rank:
            raise LoadFailed(
                "artifact_mismatch", f"its file has rank {card.rank}, registered is {adapter.artifact.rank}"
            )
        return card

    def _read(self, path: Path) -> "LoRACard":
        try:
            card = LoRAFormat.load(path)
            check_card(card, self.shapes)
        except AdapterNotFound as error:
            raise LoadFailed(ARTIFACT_GONE, str(error), transient=True) from error
        except AdapterError as error:
            raise LoadFailed("artifact_invalid", str(error)) from error
        return card
