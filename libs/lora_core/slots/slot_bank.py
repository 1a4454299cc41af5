"""`SlotBank`: many adapters at once. Loading one is a copy into its slot, and unloading is forgetting it.

The module tree is never changed: while a plan is in force the layers that it concerns have a `forward` of ours, which
adds what each row's adapters add (see `forwards`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import torch
from transformers import PreTrainedModel

from lora_core.card import LoRACard
from lora_core.errors import InvalidAdapter, SlotsFull, UnsupportedAdapter
from lora_core.layers import Adaptable, compute_dtype, dimensions, is_adaptable
from lora_core.layouts import layouts
from lora_core.slots.merged import Merged
from lora_core.slots.patched_forwards import Forward, forwards
from lora_core.slots.projection_group import Piece, ProjectionGroup, shared_inputs
from lora_core.slots.row_plan import Choice, RowPlan
from lora_core.slots.slot_memory import SlotMemory
from lora_core.stack import projection
from lora_core.validation import check_fit


class SlotBank:
    """Slots for a model's linear layers and embeddings, addressed by number. Not thread-safe.

    full_slots: how many of them there is memory for at the largest rank, None for all; adapters of smaller ranks
    share it. Raises UnsupportedBaseModel if the model cannot be computed from token ids alone (see `layouts`).
    """

    def __init__(self, model: PreTrainedModel, slots: int, max_rank: int, full_slots: int | None = None) -> None:
        full_slots = slots if full_slots is None else full_slots
        if slots < 1 or max_rank < 1 or not 1 <= full_slots <= slots:
            raise ValueError(
                f"slots={slots}, max_rank={max_rank}, full_slots={full_slots}: expected at least 1 of each, and no more"
                " full slots than slots"
            )
        self.slots, self.max_rank = slots, max_rank
        self._most_ranks = full_slots * max_rank
        self._plan: RowPlan | None = None
        self._undo = ExitStack()
        self._free = list(range(slots))
        self._ranks = [0] * slots
        self._merged: tuple[int, Merged] | None = None
        adaptable = {name: module for name, module in model.named_modules() if is_adaptable(module)}
        self._layouts = layouts(model, adaptable)
        self._modules = {name: module for name, module in adaptable.items() if name in self._layouts.of}
        first = next(iter(self._modules.values()))
        self._like = torch.empty(0, dtype=compute_dtype(first), device=first.weight.device)
        self._groups: list[ProjectionGroup] = []
        self._memories: dict[tuple[torch.dtype, torch.device, str | None], SlotMemory] = {}
        self._places: dict[str, tuple[int, int, int]] = {}  # module → group, member, layer
        self._build()
        layers = max(group.layers for group in self._groups)
        self._unit = max(memory.unit for memory in self._memories.values()) // layers * self._like.itemsize

    def _build(self) -> None:
        alike: dict[tuple[object, ...], list[list[tuple[str, Adaptable]]]] = {}
        layout_of = self._layouts.of
        for together in shared_inputs(list(self._modules.items()), layout_of):
            kind = tuple((projection(name), dimensions(module), compute_dtype(module)) for name, module in together)
            alike.setdefault((*kind, layout_of[together[0][0]]), []).append(together)
        for number, layers in enumerate(alike.values()):
            modules = [[module for _, module in layer] for layer in layers]
            group = ProjectionGroup(modules, self.slots, self._memory_for(layers), layout_of[layers[0][0][0]])
            self._groups.append(group)
            for layer, together in enumerate(layers):
                self._places |= {name: (number, member, layer) for member, (name, _) in enumerate(together)}

    def _memory_for(self, layers: Sequence[Sequence[tuple[str, Adaptable]]]) -> SlotMemory:
        """One for all that repeats in each layer; embeddings and output heads, which few adapters change, apart."""
        (name, module), *_ = layers[0]
        key = (compute_dtype(module), module.weight.device, None if projection(name) != name else name)
        if key not in self._memories:
            self._memories[key] = SlotMemory(self.slots, self.max_rank, torch.empty(0, dtype=key[0], device=key[1]))
        return self._memories[key]

    def _pieces(self, card: LoRACard) -> list[tuple[ProjectionGroup, Piece]]:
        """The card's stacks, cut where they do not fill neighbouring layers of one projection."""
        pieces: list[tuple[ProjectionGroup, Piece]] = []
        for stack in card.stacks:
            places = ((index, *self._places[module]) for index, module in enumerate(stack.modules))
            for (group, member, _), run in groupby(places, key=lambda p: (p[1], p[2], p[3] - p[0])):
                (first, _, _, layer), *rest = run
                pieces.append((self._groups[group], Piece(member, layer, stack, first, 1 + len(rest))))
        return pieces

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Module name → (out, in) of the layers that adapters can target."""
        return {name: dimensions(module) for name, module in self._modules.items()}

    @property
    def groups(self) -> Sequence[ProjectionGroup]:
        """The projections that share an input, with the memory of their slots."""
        return self._groups

    @property
    def ranks(self) -> Sequence[int]:
        """Of each slot the rank that its matrices are laid out for."""
        return self._ranks

    @property
    def held_ranks(self) -> list[int]:
        """Of each slot the rank of the adapter that it holds, 0 for an empty one."""
        empty = set(self._free)
        return [0 if slot in empty else rank for slot, rank in enumerate(self._ranks)]

    @property
    def shared(self) -> bool:
        """Are there more slots than memory for the largest rank in each?"""
        return self._most_ranks < self.slots * self.max_rank

    @property
    def free(self) -> int:
        """How many slots are empty."""
        return len(self._free)

    def fits(self, rank: int, instead_of: int | None = None) -> bool:
        """Is there a slot and memory for an adapter of this rank, once the slot `instead_of` is empty?"""
        ranks = self.held_ranks
        if instead_of is not None:
            ranks[instead_of] = 0
        return 0 in ranks and sum(ranks) + rank <= self._most_ranks

    def check(self, card: LoRACard) -> None:
        """Raises InvalidAdapter if any module of the card does not fit the model, or its rank exceeds `max_rank`.

        UnsupportedAdapter for a layer that has no rows of its own, see `layouts`.
        """
        for module in card.weights:
            if module in self._layouts.refused:
                raise UnsupportedAdapter("module", module, f"another target: this is {self._layouts.refused[module]}")
        check_fit(card, self.shapes)
        if card.max_rank > self.max_rank:
            raise InvalidAdapter("rank", card.max_rank, f"at most {self.max_rank}, the slots' size")

    def put(self, card: LoRACard) -> int:
        """Copy an adapter into the lowest free slot and return its number.

        Raises InvalidAdapter as `check` does and for numbers that are not finite, and SlotsFull.
        """
        self.check(card)
        if not self.fits(card.max_rank):
            raise SlotsFull(
                f"{self.slots - self.free} of {self.slots} slots hold adapters, which take {sum(self.held_ranks)} of"
                f" {self._most_ranks} ranks: unload one before {card.name!r} of rank {card.max_rank}"
            )
        slot, rank = self._free[0], card.max_rank
        pieces = self._pieces(card)
        with torch.inference_mode():
            for memory in self._memories.values():
                filled = [group.size(piece) for group, piece in pieces if group.memory is memory]
                memory.prepare(slot, rank, sum(filled))
            for group in self._groups:
                for member in group.members:
                    member.reset(slot)
            for group, piece in pieces:
                group.write(slot, rank, piece, card)
        self._free.pop(0)
        self._ranks[slot] = rank
        self._bound()
        for memory in {group.memory for group, _ in pieces} if self._free else ():
            memory.fetch_ahead(self._free[0], rank)  # the next adapter is likely to be like this one
        return slot

    def exchange(self, slot: int, other: int) -> None:
        """Move the adapter in `slot` into `other`, and what is there, if anything, into `slot`. No plan uses either."""
        held = self.held_ranks
        with torch.inference_mode():
            for memory in self._memories.values():
                memory.exchange(slot, held[slot], other, held[other])
            for member in (member for group in self._groups for member in group.members):
                member.exchange(slot, other)
        self._ranks[slot], self._ranks[other] = self._ranks[other], self._ranks[slot]
        if not held[other]:
            self._free = sorted([*(place for place in self._free if place != other), slot])
        if self._merged is not None:
            merged, weights = self._merged
            self._merged = ({slot: other, other: slot}.get(merged, merged), weights)
        self._bound()

    def _bound(self) -> None:
        """Give back what adapters of other ranks left behind, once that is more than full slots take."""
        if any(memory.resident > self._most_ranks * memory.unit for memory in self._memories.values()):
            self.trim()

    def drop(self, slot: int) -> None:
        """Give a slot back. Its numbers stay until the next adapter overwrites them: no row can pick them."""
        if self._merged is not None and self._merged[0] == slot:
            self.unmerge()
        self._free = sorted([*self._free, slot])

    def trim(self) -> None:
        """Give memory that no adapter uses back to the system; it comes again as it is needed. On the CPU only."""
        with torch.inference_mode():
            for memory in self._memories.values():
                for slot, rank in enumerate(self.held_ranks):
                    memory.release(slot, rank)

    def plan(self, choices: Sequence[Choice]) -> RowPlan:
        """The plan of a batch whose rows use these slots, by weight."""
        return RowPlan.of(choices, self._ranks, self._unit, self._like)

    def used(self, plan: RowPlan) -> Iterator[ProjectionGroup]:
        """The groups that the plan's adapters change."""
        spans = [slice(run.low, run.high) for run in plan.runs]
        for group in self._groups:
            if any(any(member.used[span]) for member in group.members for span in spans):
                yield group

    def merged(self, plan: RowPlan) -> bool:
        """Do weights of their own take over under this plan?"""
        return self._merged is not None and plan.uniform == self._merged[0]

    @contextmanager
    def rows(self, plan: RowPlan | None) -> Iterator[None]:
        """Forward passes inside use this plan: row i of every batch gets the deltas of its slots.

        The modules that the plan changes have another `forward` for as long, and no others do: without adapters
        nothing of ours runs.
        """
        outer = self._plan
        self._switch(plan)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, plan: RowPlan | None) -> None:
        self._undo.close()  # before anything is captured: plans within plans take turns, they do not add up
        self._plan = plan
        if plan is None or not plan.runs:
            return
        if self._merged is not None and self.merged(plan):
            self._undo.enter_context(self._merged[1].entered())
            return
        if plan.forwards is None:
            plan.forwards = [(vars(module), own) for group in self._groups for module, own in forwards(group, plan)]
        self._undo.enter_context(_exchanged(plan.forwards))

    def merge(self, slot: int) -> int:
        """Fold a slot into weights of its own, for batches in which every row uses it. Returns the bytes they take.

        The base model's weights stay as they are and are back, the very tensors, after each such batch.
        Raises InvalidAdapter on a quantised base layer.
        """
        merged = Merged()
        with torch.inference_mode():
            for name, (place, number, layer) in self._places.items():
                group = self._groups[place]
                member = group.members[number]
                if not member.used[slot]:
                    continue
                rank = self._ranks[slot]
                a = group.a_of(slot, slot + 1, rank, layer)[0].t()[number * rank : (number + 1) * rank]
                b = group.b_of(number, slot, slot + 1, rank, layer)[0]
                surplus = member.vectors("surplus")[layer, slot] if member.dora[slot] else None
                shift = member.vectors("shift")[layer, slot] if member.shifted[slot] else None
                merged.add(name, member.modules[layer], a, b, surplus=surplus, shift=shift)
        self._merged = (slot, merged)
        return merged.bytes

    def unmerge(self) -> None:
        """Forget the merged weights."""
        self._merged = None


@contextmanager
def _exchanged(exchange: Sequence[tuple[dict[str, Any], Forward]]) -> Iterator[None]:
    before = [attributes.get("forward") for attributes, _ in exchange]
    for attributes, forward in exchange:
        attributes["forward"] = forward
    try:
        yield
    finally:
        for (attributes, _), own in zip(exchange, before, strict=True):
            if own is None:
                del attributes["forward"]
            else:  # another library (accelerate's hooks, for one) had put its own there
                attributes["forward"] = own
