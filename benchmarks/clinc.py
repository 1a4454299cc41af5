"""CLINC150: utterances and their intents, by domain."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = "LORAFLEET_CLINC150"
DOMAIN = "travel"

Examples = list[tuple[str, str]]
"""Utterance and intent."""


@dataclass(frozen=True)
class Clinc:
    """The splits of one domain, and the intents of all others."""

    train: Examples
    validation: Examples
    test: Examples
    intents: list[str]
    elsewhere: list[str]

    @classmethod
    def read(cls, folder: Path, domain: str = DOMAIN) -> "Clinc":
        """Underscores of intents become spaces: words that the model knows."""
        domains: dict[str, list[str]] = json.loads((folder / "domains.json").read_text())
        splits: dict[str, Any] = json.loads((folder / "data_full.json").read_text())
        mine = set(domains[domain])

        def of(split: str) -> Examples:
            return [(text, intent.replace("_", " ")) for text, intent in splits[split] if intent in mine]

        return cls(
            train=of("train"),
            validation=of("val"),
            test=of("test"),
            intents=sorted(intent.replace("_", " ") for intent in mine),
            elsewhere=sorted(
                intent.replace("_", " ") for name, many in domains.items() if name != domain for intent in many
            ),
        )


def data_folder() -> Path | None:
    """Where the data lies, if it is here."""
    named = os.environ.get(DATA)
    return Path(named) if named and (Path(named) / "data_full.json").exists() else None
