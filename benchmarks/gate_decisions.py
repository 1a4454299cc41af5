"""What the gates decided, kept in a file so that hours of trainings and evaluations survive an interruption."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Decision", "Decisions"]


@dataclass(frozen=True)
class Decision:
    """On one adapter: `approved`, `rejected`, `review_requested` or `not trained`, after `seconds`."""

    domain: str
    kind: str
    good: bool
    outcome: str
    seconds: float


class Decisions:
    """By domain, one line of JSON each; a last line that was cut off is left out."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        self._made = {
            made.domain: made for line in lines if line.endswith("\n") for made in [Decision(**json.loads(line))]
        }

    def __contains__(self, domain: str) -> bool:
        return domain in self._made

    def __iter__(self) -> Iterator[Decision]:
        return iter(self._made.values())

    def add(self, decision: Decision) -> None:
        """Keep it."""
        self._made[decision.domain] = decision
        lines = (json.dumps(asdict(one)) + "\n" for one in self._made.values())
        self._file.write_text("".join(lines))
