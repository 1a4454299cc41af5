"""`PrefixCache`: keys and values of prompts' beginnings, so that a system prompt is computed once for each adapter."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

BLOCK = 32
"""Tokens of a block, the unit in which beginnings are kept."""

Owner = Hashable
"""Whose prompts share beginnings: the same adapters (by content, with their weights) under the same scope."""


@dataclass(frozen=True)
class PrefixStats:
    """Prompt tokens that were found and that were looked for, since the start; what is held now."""

    found: int
    wanted: int
    blocks: int
    bytes: int


@dataclass(eq=False)
class _Node:
    """Some blocks of tokens after one another. numbers: [layers, 2, heads, BLOCK, head_dim], keys and values."""

    tokens: tuple[int, ...]
    parent: "_Node | None"
    numbers: torch.Tensor | None = None
    children: dict[tuple[int, ...], "_Node"] = field(default_factory=dict)


class PrefixCache:
    """Bounded by bytes; what was used longest ago leaves first. May be used from several threads.

    The last token of a prompt is never found: a prompt has to give logits.

    counted: is given, at each look-up, how many of a prompt's tokens were found and how many it has.
    """

    def __init__(self, most: int, counted: Callable[[int, int], None] = lambda *_: None) -> None:
        self._most, self.counted = most, counted
        self._roots: dict[Owner, _Node] = {}
        self._owners: dict[_Node, Owner] = {}
        # A beginning is always used later than what follows it, so that the first one here has nothing behind it.
        self._used: OrderedDict[_Node, None] = OrderedDict()
        self._bytes = self._found = self._wanted = 0
        self._lock = threading.Lock()

    @property
    def stats(self) -> PrefixStats:
        with self._lock:
            return PrefixStats(self._found, self._wanted, len(self._used), self._bytes)

    def find(self, owner: Owner, ids: Sequence[int]) -> list[torch.Tensor]:
        """The blocks that a prompt begins with, as many as are held; counted in `stats`."""
        with self._lock:
            path = self._path(owner, ids)
            self._touch(path)
            self._found += BLOCK * len(path)
            self._wanted += len(ids)
            self.counted(BLOCK * len(path), len(ids))
            return [node.numbers for node in path if node.numbers is not None]

    def held(self, owner: Owner, ids: Sequence[int]) -> int:
        """How many blocks of it `find` would give."""
        with self._lock:
            return len(self._path(owner, ids))

    def keep(self, owner: Owner, ids: Sequence[int], numbers: torch.Tensor) -> None:
        """Keep the whole blocks of a prompt. numbers: [layers, 2, heads, tokens, head_dim] of its beginning."""
        with self._lock:
            path = self._path(owner, ids)
            if owner not in self._roots:
                self._roots[owner] = root = _Node((), None)
                self._owners[root] = owner
            last = path[-1] if path else self._roots[owner]
            for number, tokens in enumerate(_blocks(ids)):
                if number < len(path):
                    continue
                own = numbers[:, :, :, number * BLOCK : (number + 1) * BLOCK].clone()
                last.children[tokens] = last = _Node(tokens, last, own)
                self._bytes += own.nbytes
                path.append(last)
            self._touch(path)
            while self._bytes > self._most:
                self._forget(next(iter(self._used)))
            self._drop_empty(owner)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._roots.clear()
            self._owners.clear()
            self._used.clear()
            self._bytes = 0

    def _path(self, owner: Owner, ids: Sequence[int]) -> list[_Node]:
        node, path = self._roots.get(owner), []
        for tokens in _blocks(ids):
            node = None if node is None else node.children.get(tokens)
            if node is None:
                break
            path.append(node)
        return path

    def _touch(self, path: Sequence[_Node]) -> None:
        for node in reversed(path):
            self._used[node] = None
            self._used.move_to_end(node)

    def _forget(self, node: _Node) -> None:
        del self._used[node]
        assert node.parent is not None
        assert node.numbers is not None
        del node.parent.children[node.tokens]
        self._bytes -= node.numbers.nbytes
        if node.parent in self._owners:
            self._drop_empty(self._owners[node.parent])

    def _drop_empty(self, owner: Owner) -> None:
        root = self._roots.get(owner)
        if root is not None and not root.children:
            del self._roots[owner], self._owners[root]


def _blocks(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for first in range(0, (len(ids) - 1) // BLOCK * BLOCK, BLOCK):
        yield tuple(ids[first : first + BLOCK])
