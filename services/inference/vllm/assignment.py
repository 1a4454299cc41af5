"""Which servers an adapter belongs on: rendezvous hashing with bounded loads. Pure.

Thaler and Ravishankar 1998 for the hashing; Mirrokni, Thorup and Zadimoghaddam 2018 (arXiv:1608.01350) for the bound.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

SPARE = 1.25
"""No server gets more than this times its even share, so that one server's neighbours do not inherit it all."""


def assign(names: Sequence[str], servers: Sequence[str], *, copies: int, most: int) -> dict[str, tuple[str, ...]]:
    """Name → its servers, preferred first. Each gets `copies` of them, or all where there are fewer.

    Earlier names choose first, so that a new adapter moves none that is there. `most` adapters a server is held to as
    long as they fit: an adapter too many is slow, one that is nowhere cannot answer.
    """
    if not servers:
        return {}
    copies = min(copies, len(servers))
    even = len(names) * copies / len(servers)
    bound = max(math.ceil(even), min(math.ceil(SPARE * even), most))
    held: Counter[str] = Counter()
    placed: dict[str, tuple[str, ...]] = {}
    for name in names:
        # sorted is stable: among servers with room, and among those without, the order is the hash's.
        order = sorted(rendezvous(name, servers), key=lambda server: max(0, held[server] + 1 - bound))
        placed[name] = tuple(order[:copies])
        held.update(placed[name])
    return placed


def rendezvous(name: str, servers: Sequence[str]) -> list[str]:
    """The servers in the order in which this name prefers them; one that leaves changes nothing among the others."""
    return sorted(servers, key=lambda server: hashlib.sha256(f"{server}\n{name}".encode()).digest())
