"""Takes an adapter from the object store into a slot, and proves its effect before anything is served with it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from fleet_events.v1 import Adapter
from fleet_events.v1 import Probe as RecordedProbe
from fleet_kit.errors import BlobCorrupt, BlobMissing
from fleet_kit.settle import TRANSIENT
from lora_core import LoRAFormat, check_card
from lora_core.errors import AdapterError

from .cache import DiskCache
from .engine_thread import EngineThread
from .resolution import Base
from .states import LoadFailed, Proof
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from lora_core import LoRACard
    from lora_core.engine import ArrowEngine

log = structlog.get_logger()

PROBE_PROMPT = "What can you help me with?"
"""For adapters whose trainer recorded no probe."""

LEAST_EFFECT = 1e-3
"""Smallest change of any logit that counts as an effect. Rounding alone changes float32 logits (tens) by 1e-5."""

TOLERANCE = 0.02
RELATIVE_TOLERANCE = 0.02
"""How far logits may be from those that the trainer recorded: a constant, and a part of the recorded change.

Both sides compute in float32, in another order of operations, which was seen to differ by less than 1e-3.
"""

COMPARED_METHODS = frozenset({"lora", "dora"})
"""QLoRA trains on a quantised base model: its logits are not those that the full base model gives."""

WHOLE_VOCABULARY = 2**31 - 1


class SlotLoader:
    """The real `Loader`: object store → disk cache → slot → proof."""

    def __init__(
        self,
        *,
        cache: DiskCache,
        thread: EngineThread,
        engine: "ArrowEngine",
        vocabulary: Vocabulary,
        shapes: Mapping[str, tuple[int, int]],
        base: Base,
    ) -> None:
        self._cache = cache
        self._thread = thread
        self._engine = engine
        self._vocabulary = vocabulary
        self._shapes = shapes
        self._base = base

    async def fetch(self, adapter: Adapter) -> Path:
        """The artifact on disk, its digest checked."""
        blob = adapter.artifact.blob
        try:
            return await self._cache.get(blob)
        except BlobCorrupt as error:
            raise LoadFailed("artifact_corrupt", str(error)) from error
        except BlobMissing as error:
            raise LoadFailed("artifact_missing", str(error)) from error
        except TRANSIENT as error:
            reason = f"the object store is away ({type(error).__name__})"
            raise LoadFailed("object_store_unavailable", reason, transient=True) from error

    async def load(self, adapter: Adapter, path: Path) -> Proof:
        """Binds the adapter to a slot and proves its effect; a slot is left empty if that fails."""
        if adapter.base_model.revision != self._base.revision:
            raise LoadFailed(
                "incompatible_base_model",
                f"it needs base model revision {adapter.base_model.revision}, loaded is {self._base.revision}",
            )
        card = await asyncio.to_thread(_open, path, self._shapes)
        if card.rank != adapter.artifact.rank:
            raise LoadFailed(
                "artifact_mismatch", f"its file has rank {card.rank}, registered is {adapter.artifact.rank}"
            )
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
        recorded = adapter.probe if adapter.probe and adapter.probe.top_ids else None
        ids = self._probe_ids(recorded.prompt if recorded else PROBE_PROMPT)
        with_adapter = self._engine.probe(ids, adapter.adapter_id, top=WHOLE_VOCABULARY)
        without = self._engine.probe(ids, None, top=WHOLE_VOCABULARY)
        delta = with_adapter.difference(without)
        # Written so that NaN fails as well.
        if not delta >= LEAST_EFFECT:
            raise LoadFailed(
                "no_effect",
                f"it changes no logit of the probe prompt by {LEAST_EFFECT:g} or more (largest change {delta:g})",
            )
        compared = recorded is not None and adapter.method in COMPARED_METHODS
        if recorded is not None and compared:
            _compare(recorded, dict(zip(with_adapter.token_ids, with_adapter.logits, strict=True)))
        return Proof(modules_bound=modules, max_delta=delta, compared=compared)

    def _probe_ids(self, prompt: str) -> list[int]:
        # As the trainer asks: a user's turn where the model has a chat template, else plain text.
        if self._vocabulary.has_chat_template:
            return self._vocabulary.of_chat([("user", prompt)])
        return self._vocabulary.of_text(prompt)[0]


def _open(path: Path, shapes: Mapping[str, tuple[int, int]]) -> "LoRACard":
    try:
        card = LoRAFormat.load(path)
        check_card(card, shapes)
    except AdapterError as error:
        raise LoadFailed("artifact_invalid", str(error)) from error
    return card


def _compare(recorded: RecordedProbe, logits: Mapping[int, float]) -> None:
    allowed = TOLERANCE + RELATIVE_TOLERANCE * abs(recorded.max_delta)
    for token, expected in zip(recorded.top_ids, recorded.top_logits, strict=False):
        got = logits.get(token)
        if got is None or not abs(got - expected) <= allowed:
            raise LoadFailed(
                "effect_differs",
                f"the probe prompt's logit of token {token} is {got}, the trainer recorded {expected} "
                f"(allowed difference {allowed:.3g})",
            )
