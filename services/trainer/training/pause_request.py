"""How a training is asked to rest: a file in its work folder, which every launcher can reach. Imports no torch."""

from pathlib import Path

_NAME = "pause"


def ask_to_pause(work: Path) -> None:
    """Ask the training that works in this folder to save a checkpoint and end after its current step."""
    (work / _NAME).touch()


def pause_wanted(work: Path) -> bool:
    """Whether it was asked."""
    return (work / _NAME).exists()
