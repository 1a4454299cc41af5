"""Which files an import looks at. Everything else in a folder, archive or repository is left where it is, unread."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
MLX_WEIGHTS = "adapters.safetensors"
GGUF, ARROW = ".gguf", ".arrow"
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVES = (*TARS, ".zip")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
EXPECTED = (
    f"{CONFIG} with {PEFT_WEIGHTS} (PEFT) or {MLX_WEIGHTS} (MLX), one {GGUF} or {ARROW} file, or one archive of these "
    f"({', '.join(ARCHIVES)})"
)
MAX_DEPTH = 4
"""Folders within each other."""


class BadPath(ValueError):
    """A name that leads out of its folder, or too deep into it."""


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


def is_wanted(name: str) -> bool:
    """Whether a file of this name (without folders) can be part of an adapter."""
    return name in (CONFIG, PEFT_WEIGHTS, MLX_WEIGHTS) or PurePosixPath(name).suffix.lower() in (GGUF, ARROW)


def inner_path(name: str) -> PurePosixPath:
    """A relative path that stays within its folder; raises BadPath."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts or ":" in path.parts[0]:
        raise BadPath(f"{name[:200]!r} leads out of its folder")
    if len(path.parts) > MAX_DEPTH:
        raise BadPath(f"{name[:200]!r} lies more than {MAX_DEPTH - 1} folders deep")
    return path


def pickled(names: Iterable[str]) -> str | None:
    """The first name of a file that may hold pickled code."""
    return next((name for name in names if PurePosixPath(name).suffix.lower() in PICKLES), None)
