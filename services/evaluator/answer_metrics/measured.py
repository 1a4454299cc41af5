"""One metric of one answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Its value, 0 to 1, or why there is none."""

    value: float | None
    fault: str = ""
