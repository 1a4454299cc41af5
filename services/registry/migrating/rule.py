"""How a domain's versions get from one base model to another. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MIGRATION_STRATEGIES = ("convert", "retrain", "distil")
"""How a version can be carried over to another base model (AS-9.1)."""
ANY = "*"
"""Stands for every version or base model in a rule."""


@dataclass(frozen=True, slots=True)
class MigrationRule:
    """How versions get from one base model to another: `old` and `new` are names or revisions of base models, or ANY;
    `old` may be an adapter id too."""

    old: str
    new: str
    strategy: str
