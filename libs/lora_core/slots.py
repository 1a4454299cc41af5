"""Many adapters at once: stacked A and B per linear layer, and a batch whose rows each pick their own slot.

Loading an adapter is a copy into its slot and unloading is forgetting it; the module tree is never changed. A forward
hook on each linear layer adds the rows' deltas to its output, in one matrix product per run of neighbouring slots
(cf. Punica, arXiv:2310.18547, and S-LoRA, arXiv:2311.03285).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Self

import numpy as np
import torch
from torch import nn

from lora_core.card import LoRACard, LoRAWeights
from lora_core.errors import InvalidAdapter, SlotsFull
from lora_core.tensors import to_torch
from lora_core.validation import check_fit


@dataclass(frozen=True)
class Run:
    """Slots `low..high-1`, each used by the same number of rows.

    rows: the batch rows, ordered by slot. span: (first, last+1) where the rows are neighbours in that order, so that
    they can be viewed; else None and `index` gathers them.
    """

    low: int
    high: int
    rows: tuple[int, ...]
    index: torch.Tensor
    span: tuple[int, int] | None


@dataclass(frozen=True)
class RowPlan:
    """Which slot each row of a batch uses, arranged into as few matrix products as there are runs of slots."""

    size: int
    runs: tuple[Run, ...]

    @classmethod
    def of(cls, slots: Sequence[int | None], device: torch.device | str = "cpu") -> Self:
        """slots: for each row its slot, or None for the base model alone."""
        rows_of: dict[int, list[int]] = {}
        for row, slot in enumerate(slots):
            if slot is not None:
                rows_of.setdefault(slot, []).append(row)
        # Neighbouring slots with equally many rows differ from (slot - place in order) by a constant.
        keyed = enumerate(sorted(rows_of))
        runs = []
        for _, group in groupby(keyed, key=lambda item: (item[1] - item[0], len(rows_of[item[1]]))):
            members = [slot for _, slot in group]
            rows = tuple(row for slot in members for row in rows_of[slot])
            ends = (rows[0], rows[0] + len(rows))
            span = ends if rows == tuple(range(*ends)) else None
            runs.append(Run(members[0], members[-1] + 1, rows, torch.tensor(rows, device=device), span))
        return cls(len(slots), tuple(runs))


@dataclass
class _Layer:
    """The slots of one linear layer. a: [slots, max_rank, in]; b: [slots, max_rank, out], scaled.

    Rows of a slot beyond its adapter's rank are zero, so that adapters of different rank share a product.
    """

    module: nn.Linear
    a: torch.Tensor
    b: torch.Tensor
    ranks: list[int]
    written: list[int] = field(default_factory=list)  # rows of each slot that may be other than zero

    def put(self, slot: int, weights: LoRAWeights, scaling: float) -> None:
        rank = weights.rank
        self.a[slot, :rank].copy_(to_torch(weights.a))
        self.b[slot, :rank].copy_(to_torch(weights.b).t())
        if scaling != 1.0:
            self.b[slot, :rank].mul_(scaling)
        self.clear(slot, rank)

    def clear(self, slot: int, keep: int = 0) -> None:
        if self.written[slot] > keep:
            self.a[slot, keep : self.written[slot]].zero_()
            self.b[slot, keep : self.written[slot]].zero_()
        self.written[slot] = self.ranks[slot] = keep

    def add(self, x: torch.Tensor, output: torch.Tensor, plan: RowPlan) -> None:
        """Add each row's delta to `output` in place. x: [rows, tokens, in], output: [rows, tokens, out]."""
        tokens = x.shape[1]
        for run in plan.runs:
            rank = max(self.ranks[run.low : run.high])
            if not rank:
                continue
            count = run.high - run.low
            a, b = self.a[run.low : run.high, :rank], self.b[run.low : run.high, :rank]
            span = run.span
            rows_x = x[span[0] : span[1]] if span else x.index_select(0, run.index)
            grouped = rows_x.reshape(count, -1, x.shape[2])  # [slots, rows per slot · tokens, in]
            delta = torch.bmm(torch.bmm(grouped, a.transpose(1, 2)), b).view(len(run.rows), tokens, -1)
            if span:
                output[span[0] : span[1]].add_(delta)
            else:
                output.index_add_(0, run.index, delta)


class SlotBank:
    """Slots for a model's linear layers (its output head excepted), addressed by number. Not thread-safe."""

    def __init__(self, model: nn.Module, slots: int, max_rank: int) -> None:
        if slots < 1 or max_rank < 1:
            raise ValueError(f"slots={slots}, max_rank={max_rank}: expected at least 1 of each")
        self.slots, self.max_rank = slots, max_rank
        self._plan: RowPlan | None = None
        self._free = list(range(slots))
        head = getattr(model, "get_output_embeddings", lambda: None)()
        self._layers = {
            name: _Layer(
                module,
                _zeros((slots, max_rank, module.in_features), module.weight),
                _zeros((slots, max_rank, module.out_features), module.weight),
                [0] * slots,
                [0] * slots,
            )
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
        self._hooks = [layer.module.register_forward_hook(self._hook(layer)) for layer in self._layers.values()]

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Module name → (out, in) of the layers that adapters can target."""
        return {name: (layer.module.out_features, layer.module.in_features) for name, layer in self._layers.items()}

    @property
    def free(self) -> int:
        """How many slots are empty."""
        return len(self._free)

    def check(self, card: LoRACard) -> None:
        """Raises InvalidAdapter if any module of the card does not fit the model, or its rank exceeds `max_rank`."""
        check_fit(card, self.shapes)
        if card.max_rank > self.max_rank:
            raise InvalidAdapter("rank", card.max_rank, f"at most {self.max_rank}, the slots' size")

    def put(self, card: LoRACard) -> int:
        """Copy an adapter into the lowest free slot and return its number.

        Raises InvalidAdapter as `check` does, and SlotsFull.
        """
        self.check(card)
        if not self._free:
            raise SlotsFull(f"all {self.slots} slots hold an adapter: unload one before {card.name!r}")
        slot = self._free.pop(0)
        with torch.inference_mode():
            for name, layer in self._layers.items():
                weights = card.weights.get(name)
                if weights is None:
                    layer.clear(slot)
                else:
                    layer.put(slot, weights, card.scaling(name))
        return slot

    def drop(self, slot: int) -> None:
        """Give a slot back. Its numbers stay until the next adapter overwrites them: no row can pick them."""
        self._free = sorted([*self._free, slot])

    @contextmanager
    def rows(self, plan: RowPlan | None) -> Iterator[None]:
        """Forward passes inside use this plan: row i of every batch gets the delta of its slot."""
        previous, self._plan = self._plan, plan if plan and plan.runs else None
        try:
            yield
        finally:
            self._plan = previous

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, layer: _Layer) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def add(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            plan = self._plan
            if plan is None:
                return  # the base model's own output, untouched
            if args[0].shape[0] != plan.size:
                raise RuntimeError(f"a batch of {args[0].shape[0]} rows under a plan for {plan.size}")
            layer.add(args[0], output, plan)

        return add


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros whose memory is not resident until it is written, where the system can do that (calloc on the CPU)."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, dtype=np.float32))
    return torch.zeros(shape, dtype=like.dtype, device=like.device)
