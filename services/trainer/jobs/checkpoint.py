"""A checkpoint as one file: what the trainer needs to go on, packed and unpacked."""

import tarfile
from pathlib import Path

# The tokenizer, model card and pickled arguments that transformers saves beside them are not needed to go on.
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
