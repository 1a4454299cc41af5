"""Free TCP ports on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Mapping

LOOPBACK = "127.0.0.1"
# Below Linux's range for outgoing connections, so that no client socket takes a port between choice and use.
_RANGE = range(20000, 32000)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port right now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(names: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name; the one it had `before` where that is still free: addresses stay the same."""
    chosen: dict[str, int] = {}
    for name in names:
        port = before.get(name, 0)
        while port in chosen.values() or port not in _RANGE or not is_free(port):
            port = random.choice(_RANGE)  # noqa: S311 - not a secret
        chosen[name] = port
    return chosen
