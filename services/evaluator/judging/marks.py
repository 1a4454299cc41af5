"""Texts of others as data inside a prompt: marks that no text can close, and a canary that catches obedience. Pure.

Both follow from a digest of all that is enclosed, which none of the texts can foresee.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Enclosed:
    """The parts of a prompt between their marks, and the canary's only right score, 1 to 9.

    It is neither 0 nor 10, which an instruction inside a text would ask for.
    """

    shown: str
    canary: int


def enclose(parts: Sequence[tuple[str, str]]) -> Enclosed:
    """The (title, text) parts, each text between two lines that only these parts have."""
    seal = hashlib.sha256(json.dumps(parts).encode()).digest()
    mark = seal.hex()[:16]
    shown = "\n\n".join(f"{title}:\nMARK {mark}\n{text}\nMARK {mark}" for title, text in parts)
    return Enclosed(shown, 1 + seal[-1] % 9)
