"""Free TCP ports on loopback, claimed so that no other stack of this machine chooses them too."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Mapping

LOOPBACK = "127.0.0.1"
# Below Linux's range for outgoing connections, so that no client socket takes a port between choice and use.
_RANGE = range(20000, 32000)
# The UDP port of the same number is the claim: none of our servers uses UDP, a bound one is exclusive, leaves no file
# behind, and ends with the process that holds it.
_claims: dict[int, socket.socket] = {}


def choose(names: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name; the one it had `before` where that is still free: addresses stay the same.

    They are claimed until `release` or the end of this process: a server may listen on its port late, or stop for a
    while, and no other stack takes the port meanwhile.
    """
    chosen: dict[str, int] = {}
    for name in names:
        port = before.get(name, 0)
        while port not in _RANGE or not _claim(port):
            port = random.choice(_RANGE)  # noqa: S311 - not a secret
        chosen[name] = port
    return chosen


def release(ports: Iterable[int]) -> None:
    """End the claims on these ports; one that is not claimed is ignored."""
    for port in ports:
        if claim := _claims.pop(port, None):
            claim.close()


def _claim(port: int) -> bool:
    """Whether the port is this process's from now on: nobody had claimed it, and a server could listen on it."""
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        claim.bind((LOOPBACK, port))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True
