"""The files of a base model folder: which there must be, and what their headers declare. No torch."""

import hashlib
import json
from pathlib import Path

from lora_core.errors import AdapterNotFound, UnsupportedBaseModel
from lora_core.format.safetensors_header import TensorEntry, read_header


def layout_digest(folder: Path | str) -> str:
    """sha256 over config.json and the names, dtypes and shapes of all tensors: alike for every copy of a revision.

    It costs the headers, not the weights. Raises AdapterNotFound if the folder is no model, UnsupportedBaseModel if its
    index names a file that is not there, CorruptAdapter for a broken file.
    """
    folder = Path(folder)
    tensors = declared(folder)
    found = hashlib.sha256((folder / "config.json").read_bytes())
    for name, entry in sorted(tensors.items()):
        found.update(f"\n{name} {entry.dtype} {list(entry.shape)}".encode())
    return found.hexdigest()


def declared(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor that the headers of the folder's files declare. Raises as `layout_digest` does."""
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise no_model(folder)
    _check_shards(folder)
    return {name: entry for file in files for name, entry in read_header(file).items()}


def no_model(folder: Path) -> AdapterNotFound:
    """What is raised for a folder without configuration or weights, and what to do where pickled weights are there."""
    pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    return AdapterNotFound(
        f"no base model in {folder}: expected config.json and *.safetensors"
        + (f"; {pickled[0]} is never read, for it can run code: convert it to safetensors" if pickled else "")
    )


def _check_shards(folder: Path) -> None:
    """transformers reads the index where there is no single file."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return
    try:
        named = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnsupportedBaseModel(f"{folder.name}/{index.name} is no index: expected an object weight_map") from error
    if lost := sorted(name for name in named if not (folder / name).is_file()):
        more = f" and {len(lost) - 1} more" if lost[1:] else ""
        raise UnsupportedBaseModel(
            f"{folder.name} lacks {lost[0][:200]}{more}, which {index.name} names: expected every file of the model"
        )
