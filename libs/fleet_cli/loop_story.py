"""What `lorafleet demo-loop` is made of: a handbook with a gap, the users who find it, and figures of both versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet_cli.commands.data import read_samples
from fleet_cli.commands.golden import read_golden
from lorafleet.errors import BadInput
from lorafleet.responses import JudgedSample

Line = dict[str, object]


@dataclass(frozen=True)
class Story:
    """The demo's settings (`loop.json`) and its data, split by whether it belongs to the gap.

    `known` trains the first version; `questions` are the users' ones about the gap, each with what the handbook
    answers. `golden_known` and `golden_gap` are held out of both.
    """

    domain: str
    description: str
    policy: Mapping[str, object]
    first: Mapping[str, object]
    rules: Mapping[str, object]
    known: Sequence[Line]
    questions: Sequence[tuple[str, str]]
    golden_known: Sequence[Line]
    golden_gap: Sequence[Line]

    @classmethod
    def read(cls, folder: Path, data: Path) -> Story:
        """Read a folder with `loop.json`, and one with the handbook's training.jsonl and golden.jsonl."""
        try:
            settings = json.loads((folder / "loop.json").read_text())
        except (OSError, ValueError) as error:
            raise BadInput("--examples", f"{folder / 'loop.json'} cannot be read: {error}") from error
        golden = read_golden(str(data / "golden.jsonl"), "--data")
        gap, known = (_of_chapters(golden, settings[part]) for part in ("gap", "known"))
        missing = {str(one["expected_output"]) for one in gap}
        taught = {str(one["expected_output"]) for one in known}
        by_fact: dict[str, list[Line]] = {}
        for one in read_samples(str(data / "training.jsonl"), "--data"):
            by_fact.setdefault(str(one["completion"]), []).append(one)
        wordings, users = int(settings["wordings"]), int(settings["users"])
        return cls(
            domain=settings["domain"],
            description=settings["description"],
            policy=settings["policy"],
            first=settings["first"],
            rules=settings["rules"],
            known=[one for fact, lines in by_fact.items() if fact in taught for one in lines[:wordings]],
            questions=[
                (str(by_fact[fact][wording]["prompt"]), fact)
                for wording in range(users)
                for fact in by_fact
                if fact in missing
            ],
            golden_known=known,
            golden_gap=gap,
        )


def _of_chapters(golden: Sequence[Line], chapters: Sequence[str]) -> list[Line]:
    return [one for one in golden if str(one["context"]).endswith(tuple(chapters))]


@dataclass(frozen=True)
class Figures:
    """Two versions on the same golden samples: mean scores (0 to 100), samples passed, and the share of wins.

    A sample is won by the version with the higher score; equal scores count half.
    """

    samples: int
    before: float
    after: float
    passed_before: int
    passed_after: int
    win_rate: float

    @classmethod
    def of(cls, samples: Iterable[str], before: Sequence[JudgedSample], after: Sequence[JudgedSample]) -> Figures:
        """Of those samples that both versions have a score of. Raises ValueError where there is none."""
        old = {one.sample_id: one for one in before if one.overall is not None}
        new = {one.sample_id: one for one in after if one.overall is not None}
        pairs = [(old[name], new[name]) for name in samples if name in old and name in new]
        if not pairs:
            raise ValueError("no sample has a score of both versions")
        scores = [(earlier.overall or 0.0, later.overall or 0.0) for earlier, later in pairs]
        return cls(
            samples=len(pairs),
            before=sum(earlier for earlier, _ in scores) / len(pairs),
            after=sum(later for _, later in scores) / len(pairs),
            passed_before=sum(earlier.passed for earlier, _ in pairs),
            passed_after=sum(later.passed for _, later in pairs),
            win_rate=sum(1.0 if later > earlier else 0.5 if later == earlier else 0.0 for earlier, later in scores)
            / len(pairs),
        )
