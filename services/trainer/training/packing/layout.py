"""Rows of tokens laid out as one sequence without padding, in which a prefix that several rows begin with occurs once.

The rows form a tree: a node is a run of tokens that the same rows share. Every token is computed once, at its own
position, and attends to the tokens on its path from the root and to nothing else. Hidden states are those of the rows
one by one: with causal attention a prefix cannot see what follows it. (Prefix trees in training: Flash Preference
Optimisation and tree attention use the same identity.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

SHORTEST_SHARED = 8
"""Tokens from which a common run gets a node of its own: a shorter one saves less than its node's attention costs."""


_WASTE = 1.5  # padded over own attention of a group: below it another group costs more than the padding
_CPU = torch.device("cpu")
_SMALL = 1 << 14  # query-key pairs that cost less than a call of their own


@dataclass(frozen=True)
class _Node:
    """Tokens `start` to `end` of `row`, which stand for the same tokens of every other row below it."""

    row: int
    start: int
    end: int

    @property
    def pairs(self) -> int:
        """Queries times keys of its attention."""
        return (self.end - self.start) * self.end


class Group:
    """Nodes of like size whose attention is computed together.

    Attributes (on the packing's device):
        queries: [nodes, longest node], packed indices; padded with 0.
        keys: [nodes, longest path], packed indices of a node's path from the root to its end; padded with 0.
    """

    def __init__(self, nodes: Sequence[_Node], paths: Sequence[Sequence[int]], device: torch.device) -> None:
        self._starts = torch.tensor([node.start for node in nodes]).to(device)
        self._ends = torch.tensor([node.end for node in nodes]).to(device)
        queries = torch.zeros(len(nodes), max(node.end - node.start for node in nodes), dtype=torch.long)
        keys = torch.zeros(len(nodes), max(node.end for node in nodes), dtype=torch.long)
        for index, node in enumerate(nodes):
            path = torch.tensor(paths[node.row][: node.end])
            keys[index, : node.end] = path
            queries[index, : node.end - node.start] = path[node.start :]
        self.queries, self.keys = queries.to(device), keys.to(device)
        self._visible: dict[int | None, torch.Tensor] = {}

    def visible(self, window: int | None = None) -> torch.Tensor:
        """Which key a query sees, bool [nodes, 1, longest node, longest path]; `window` counts its own token."""
        if window not in self._visible:
            query, key = (torch.arange(each.shape[1], device=each.device) for each in (self.queries, self.keys))
            at = self._starts[:, None] + query  # [nodes, queries]
            seen = (key <= at[..., None]) & (key < self._ends[:, None, None])
            if window is not None:
                # Padded queries may have nothing in their window; they see the first key, and nothing reads them.
                padded = at >= self._ends[:, None]
                seen &= (key > at[..., None] - window) | (padded[..., None] & (key == 0))
            self._visible[window] = seen[:, None]
        return self._visible[window]


class Packing:
    """The layout of one batch, found on the CPU; its tensors are on `device`, where the model computes.

    Attributes:
        ids, positions: [tokens], what is computed and at which position of its row.
        places: for each row, the packed index of each of its tokens.
        groups: all nodes, parted by size.
        back: [tokens], where a packed token's query lies in the groups' flattened `queries`, one after the other.
    """

    def __init__(self, rows: Sequence[Sequence[int]], device: torch.device = _CPU) -> None:
        self._nodes: list[_Node] = []
        self.places: list[list[int]] = [[] for _ in rows]
        self._packed = 0
        self._rows = rows
        self._grow([index for index, row in enumerate(rows) if row], 0)
        nodes = self._nodes
        ids = [token for node in nodes for token in rows[node.row][node.start : node.end]]
        self.ids = torch.tensor(ids).to(device)
        self.positions = torch.tensor([at for node in nodes for at in range(node.start, node.end)]).to(device)
        self.groups: list[Group] = []
        back = torch.empty(self._packed, dtype=torch.long)
        laid = 0
        for members in _alike(nodes):
            group = Group(members, self.places, device)
            self.groups.append(group)
            longest = group.queries.shape[1]
            for node in members:
                run = self.places[node.row][node.start : node.end]
                back[run[0] : run[-1] + 1] = torch.arange(laid, laid + len(run))
                laid += longest
        self.back = back.to(device)

    def _grow(self, members: list[int], start: int) -> None:
        """Lay out what the members, equal up to `start`, have from there on."""
        groups: dict[int, list[int]] = {}
        for member in members:
            if len(self._rows[member]) > start:
                groups.setdefault(self._rows[member][start], []).append(member)
        for group in groups.values():
            shared = self._shared(group, start)
            if len(group) > 1 and shared - start >= SHORTEST_SHARED:
                self._add(group, start, shared)
                self._grow(group, shared)
            else:
                for member in group:
                    self._add([member], start, len(self._rows[member]))

    def _shared(self, group: list[int], start: int) -> int:
        first, *others = (self._rows[member] for member in group)
        end = min(map(len, (first, *others)))
        for other in others:
            at = start
            while at < end and first[at] == other[at]:
                at += 1
            end = at
        return end

    def _add(self, group: list[int], start: int, end: int) -> None:
        self._nodes.append(_Node(group[0], start, end))
        run = range(self._packed, self._packed + end - start)
        for member in group:
            self.places[member].extend(run)
        self._packed += end - start


def _alike(nodes: Sequence[_Node]) -> Iterator[list[_Node]]:
    """The nodes in groups whose padding is a small part of their attention."""
    group: list[_Node] = []
    longest = deepest = own = 0
    for node in sorted(nodes, key=lambda each: (each.pairs, each.row, each.start)):
        longest, deepest = max(longest, node.end - node.start), max(deepest, node.end)
        own += node.pairs
        if group and (len(group) + 1) * longest * deepest > _WASTE * own + _SMALL:
            yield group
            group, longest, deepest, own = [], node.end - node.start, node.end, node.pairs
        group.append(node)
    yield group
