"""What a chaos run has found so far, kept in a file: a later run in the same folder goes on counting."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Round:
    """Kills among some loops and facts, and what was there in the end."""

    name: str
    kills: dict[str, int] = field(default_factory=dict)
    """By part; where the trouble is another one, what it did and how often."""
    facts: int = 0
    """Events that the bus acknowledged, beside those of the loops."""
    loops: int = 0
    lost: int = 0
    """Effects that are missing, and dead letters."""
    duplicated: int = 0
    different: int = 0
    """Loops whose final state is not that of a loop without kills."""
    seconds_until_ready: float = 0.0
    """From the last kill."""
    notes: tuple[str, ...] = ()
    """What was lost, duplicated or different."""

    @property
    def is_clean(self) -> bool:
        """Whether everything took effect once."""
        return not (self.lost or self.duplicated or self.different)


class ChaosLog:
    """The rounds of all runs in one folder. A round that was cut short is not among them, nor are its kills."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._rounds = folder / "rounds.jsonl"
        self._expected = folder / "expected.json"

    @property
    def rounds(self) -> list[Round]:
        """From the first on."""
        if not self._rounds.exists():
            return []
        # A process that was killed while it wrote leaves a line without an end.
        lines = self._rounds.read_text().split("\n")[:-1]
        return [Round(**{**line, "notes": tuple(line["notes"])}) for line in map(json.loads, lines)]

    def add(self, one: Round) -> None:
        """Keep a round."""
        content = self._rounds.read_text() if self._rounds.exists() else ""
        whole = content[: content.rfind("\n") + 1]
        part = self._rounds.with_suffix(".part")
        part.write_text(f"{whole}{json.dumps(asdict(one))}\n")
        part.replace(self._rounds)

    @property
    def expected(self) -> dict[str, Any] | None:
        """The final state of a loop without kills; None before there was one."""
        return json.loads(self._expected.read_text()) if self._expected.exists() else None

    @expected.setter
    def expected(self, state: dict[str, Any]) -> None:
        self._expected.write_text(json.dumps(state))


def kills(rounds: Iterable[Round]) -> int:
    """Kills of all rounds."""
    return sum(sum(one.kills.values()) for one in rounds)


def summary(rounds: Iterable[Round]) -> str:
    """The one line that a run prints."""
    rounds = list(rounds)
    lost, duplicated, different = (
        sum(getattr(one, name) for one in rounds) for name in ("lost", "duplicated", "different")
    )
    return f"{kills(rounds)} kills, {lost} lost, {duplicated} duplicated, {different} different final states"
