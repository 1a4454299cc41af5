"""`Site`: projections of one layer that read one input, and where their matrices lie in the memory of slots."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lora_core.int8 import Int8Linear
from lora_core.layers import is_quantised
from lora_core.slots.projection_group import ProjectionGroup

_MOST_MEMBERS = 3  # q, k and v


@dataclass(frozen=True, eq=False)
class Site:
    """One group of projections in one layer.

    numbers: the memory of all slots, [slots, numbers of a slot]. A slot of rank r holds A at r · a_place as
    [members, r, in] and each member's B, scaled, at r · b_places[member] as [r, out].
    """

    modules: tuple[nn.Module, ...]
    numbers: torch.Tensor
    in_features: int
    out_features: tuple[int, ...]
    a_place: int
    b_places: tuple[int, ...]


class Products(Protocol):
    """Adds what each row's adapter adds, for all members of a site at once."""

    def add(
        self, site: Site, x: torch.Tensor, outputs: Sequence[torch.Tensor], slots: torch.Tensor, ranks: torch.Tensor
    ) -> None:
        """x: [rows, in]. outputs: for each member [rows, out], changed in place. slots: int32 [rows], -1 for the base
        model. ranks: int32 [slots of the memory]."""
        ...


class TorchProducts:
    """The same numbers in plain torch, a row at a time: for processors, and what the kernels are tested against."""

    def add(
        self, site: Site, x: torch.Tensor, outputs: Sequence[torch.Tensor], slots: torch.Tensor, ranks: torch.Tensor
    ) -> None:
        for row, slot in enumerate(slots.tolist()):
            if slot < 0:
                continue
            rank, numbers, members = int(ranks[slot]), site.numbers[slot], len(outputs)
            a = numbers.narrow(0, rank * site.a_place, members * rank * site.in_features)
            reduced = a.view(members, rank, site.in_features).float() @ x[row].float()
            for member, output in enumerate(outputs):
                out_features = site.out_features[member]
                b = numbers.narrow(0, rank * site.b_places[member], rank * out_features).view(rank, out_features)
                output[row] = (output[row].float() + reduced[member] @ b.float()).to(output.dtype)


def sites_of(groups: Sequence[ProjectionGroup]) -> list[Site]:
    """The sites of all layers of the groups that graphs can serve (see `servable`)."""
    return [_site(group, layer) for group in groups if servable(group) for layer in range(group.layers)]


def servable(group: ProjectionGroup) -> bool:
    """Plain linear layers inside the network: embeddings, heads and quantised layers run outside of graphs."""
    modules = [member.modules[0] for member in group.members]
    plain = all(type(module) is nn.Linear and not is_quantised(module) for module in modules)
    plain = plain and group.layout.per_token == 1  # a step has one vector of each row
    return plain and group.layers > 1 and len(modules) <= _MOST_MEMBERS and not isinstance(modules[0], Int8Linear)


def _site(group: ProjectionGroup, layer: int) -> Site:
    return Site(
        modules=tuple(member.modules[layer] for member in group.members),
        numbers=group.memory.numbers,
        in_features=group.in_features,
        out_features=tuple(member.out_features for member in group.members),
        a_place=group.a_place(layer),
        b_places=tuple(group.b_place(member, layer) for member in range(len(group.members))),
    )


Forward = Callable[[torch.Tensor], torch.Tensor]


class _Member:
    """The forward of one member while rows of a decoding step are computed: [rows, 1, in] → [rows, 1, out]."""

    def __init__(self, site: "_Running", number: int) -> None:
        self._site, self._number = site, number

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._site.output(self._number, x)


class _Running:
    """A site in a forward pass: whichever member is called first with an input computes all members."""

    def __init__(self, site: Site, products: Products, slots: torch.Tensor, ranks: torch.Tensor) -> None:
        self._site, self._products, self._slots, self._ranks = site, products, slots, ranks
        self._own: list[Forward] = [module.forward for module in site.modules]
        self._input: torch.Tensor | None = None
        self._outputs: dict[int, torch.Tensor] = {}

    def output(self, number: int, x: torch.Tensor) -> torch.Tensor:
        if self._input is not x or number not in self._outputs:
            outputs = [own(x) for own in self._own]
            rows = x.reshape(-1, self._site.in_features)
            flat = [output.view(rows.shape[0], -1) for output in outputs]
            self._products.add(self._site, rows, flat, self._slots, self._ranks)
            self._input, self._outputs = x, dict(enumerate(outputs))
        output = self._outputs.pop(number)
        if not self._outputs:
            self._input = None
        return output


@contextmanager
def adapted(sites: Sequence[Site], products: Products, slots: torch.Tensor, ranks: torch.Tensor) -> Iterator[None]:
    """Forward passes inside add to row i of a step what the adapter in `slots[i]` adds; see `Products.add`."""
    exchanged: list[tuple[dict[str, Any], Any]] = []
    try:
        for site in sites:
            running = _Running(site, products, slots, ranks)
            for number, module in enumerate(site.modules):
                attributes = vars(module)
                exchanged.append((attributes, attributes.get("forward")))
                attributes["forward"] = _Member(running, number)
        yield
    finally:
        for attributes, before in reversed(exchanged):
            if before is None:
                del attributes["forward"]
            else:
                attributes["forward"] = before
