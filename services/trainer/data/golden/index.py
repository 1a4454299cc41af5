"""Prints of golden prompts, held against the records that somebody wants to train on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GoldenIndex:
    """All golden prompts that the trainer knows, of every domain."""
