"""A checkpoint as one file: what the trainer needs to resume, packed and unpacked."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

from services.trainer.training.protocol import Validated

# The tokenizer, model card and pickled arguments that transformers saves beside them are not needed to resume.
CONTENT = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
)


def pack(folder: Path, to: Path) -> Path:
    """Tar of weights, optimizer, scheduler, random state and step; equal content gives equal bytes.

    Raises:
        FileNotFoundError: the folder is no complete checkpoint.
    """
    with tarfile.open(to, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in CONTENT:
            entry = tarfile.TarInfo(name)
            entry.size = (folder / name).stat().st_size
            with (folder / name).open("rb") as file:
                archive.addfile(entry, file)
    return to


def unpack(archive: Path, to: Path) -> Path:
    """Write the checkpoint's files into a folder; other names in the archive are left alone."""
    to.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "r:") as opened:
        for name in CONTENT:
            opened.extract(name, to, filter="data")
    return to


def best_step(steps: Sequence[int], validations: Sequence[Validated]) -> int | None:
    """Of these checkpoints the one of lowest validation loss, of equal ones the first; None where none was measured."""
    measured = [one for one in validations if one.step in steps]
    return min(measured, key=lambda one: (one.loss, one.step)).step if measured else None
