"""`Lease`: the slots that the rows of one batch hold, and the forward passes of those rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Protocol

import torch
from transformers import DynamicCache, PreTrainedModel

from lora_core.direct.decoder import DirectDecoder
from lora_core.forward_pass import Inputs, through_transformers
from lora_core.prefix_cache import Owner, PrefixCache
from lora_core.reports import BindReport
from lora_core.sampling import Adapters
from lora_core.slots.row_plan import RowPlan
from lora_core.slots.slot_bank import SlotBank


@dataclass
class LoadedAdapter:
    """An adapter in a slot. Batches in progress keep the slot; once retired, the last of them frees it."""

    card_digest: str
    report: BindReport
    number: int
    users: int = 0
    retired: bool = False

    @property
    def slot(self) -> int:
        """Where it is now; it may be moved while no row uses it."""
        return self.report.slot

    @slot.setter
    def slot(self, slot: int) -> None:
        self.report = replace(self.report, slot=slot)


class SlotOwner(Protocol):
    """What a lease needs of the engine that it belongs to."""

    model: PreTrainedModel
    prefixes: PrefixCache | None
    _bank: SlotBank
    _direct: DirectDecoder | None
    _lock: RLock

    def _hold(
        self, rows: Sequence[int], adapters: Sequence[Adapters]
    ) -> dict[int, list[tuple[LoadedAdapter, float]]]: ...

    def _release(self, loaded: LoadedAdapter) -> None: ...


@dataclass
class Lease:
    """The slots of one batch's rows: for each row its adapters and their weights."""

    engine: SlotOwner
    held: dict[int, list[tuple[LoadedAdapter, float]]] = field(default_factory=dict)

    def hold(self, rows: Sequence[int], adapters: Sequence[Adapters]) -> None:
        self.held |= self.engine._hold(rows, adapters)

    def plan(self, rows: Sequence[int]) -> RowPlan:
        return self.engine._bank.plan([[(own.slot, w) for own, w in self.held.get(row, ())] for row in rows])

    def order(self, rows: Sequence[int]) -> list[int]:
        slots = [[own.slot for own, _ in self.held.get(row, ())] for row in rows]
        return sorted(range(len(rows)), key=slots.__getitem__)

    @property
    def prefixes(self) -> PrefixCache | None:
        return self.engine.prefixes

    def owner(self, row: int) -> Owner:
        return tuple((own.card_digest or own.number, weight) for own, weight in self.held.get(row, ()))

    def release(self, row: int) -> None:
        for loaded, _ in self.held.pop(row, ()):
            self.engine._release(loaded)

    def read(self, plan: RowPlan, inputs: Inputs, cache: DynamicCache) -> torch.Tensor | None:
        engine = self.engine
        with engine._lock, torch.inference_mode():
            if engine._direct is not None and engine._direct.serves(plan):
                return engine._direct.read(plan, inputs, cache)
            with engine._bank.rows(plan):
                return through_transformers(engine.model, inputs, cache)
