"""Options of TCP connections, with which a peer that vanished is noticed.

A host without power sends no reset. Whoever waits for its answer waits for as long as its own time limit, and the
kernel gives up what was sent after a quarter of an hour (RFC 9293, section 3.8.3).
"""

import socket

__all__ = ["GONE_SECONDS", "OPTIONS"]

GONE_SECONDS = 15
"""Until a connection ends whose peer acknowledges nothing: below the 30 s in which a service is to be ready again."""

_NAMED = (
    # A wait for an answer sends nothing: it is the probes that find nobody there.
    ("TCP_KEEPIDLE", 5),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 2),
    ("TCP_USER_TIMEOUT", GONE_SECONDS * 1000),
)

OPTIONS: list[tuple[int, int, int]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _NAMED if hasattr(socket, name)),
]
"""Level, name and value of each option that this system has."""
