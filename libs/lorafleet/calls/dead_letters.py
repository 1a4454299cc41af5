"""Dead letters: the same endpoints on every service that has a database."""

from __future__ import annotations

from pydantic import TypeAdapter

from lorafleet.calls.paths import path_segment
from lorafleet.clients import Call
from lorafleet.responses import DeadLetter, DeadLetters, ReplayedLetter


def dead_letters(service: str, limit: int = 100) -> Call[DeadLetters]:
    """Events that a service gave up, newest first."""
    return Call(service, "GET", "/v1/dead-letters", TypeAdapter(DeadLetters), {"limit": limit})


def dead_letter(service: str, letter_id: str) -> Call[DeadLetter]:
    """One of them."""
    return Call(service, "GET", f"/v1/dead-letters/{path_segment(letter_id)}", TypeAdapter(DeadLetter))


def replay_dead_letter(service: str, letter_id: str) -> Call[ReplayedLetter]:
    """Have the consumer that gave it up handle it once more."""
    path = f"/v1/dead-letters/{path_segment(letter_id)}/replay"
    return Call(service, "POST", path, TypeAdapter(ReplayedLetter))
