"""What layers a base model has: described once per revision, kept by digest, read by everybody. No torch.

Names, shapes and kinds are those of the model that transformers builds, which need not be the names in its files: these
may lack a prefix, have one more, hold experts one by one that become one stacked parameter, or packed integers. The
model is built without weights (`description_process`), in a process of its own where torch is not loaded anyway. Where
torch is not installed, the description has to be there already: in the folder (`lorafleet models describe`), or in the
cache below the user's cache folder.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lora_core.errors import AdapterNotFound, NotDescribed, UnsupportedBaseModel
from lora_core.format.safetensors_header import TensorEntry, read_header
from lora_core.replace_file import replace_file

FILE = "lorafleet-layers.json"
"""Name of a description inside a base model's folder."""
_SECONDS = 600.0  # importing torch on a busy machine takes tens of them
_REFUSED = 3  # exit status of `lora_core.description_process` for a model that transformers cannot build

log = logging.getLogger(__name__)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Layer(_Frozen):
    """A layer that LoRA can adapt.

    kind: `linear`, `embedding` (the input embedding) or `head` (the output head, a linear layer).
    shape: (out, in); an embedding leads from its vocabulary, as a one-hot row would.
    bias: whether it has one. decoder: whether it is in one of the numbered layers of the text decoder.
    """

    kind: Literal["linear", "embedding", "head"]
    shape: tuple[int, int]
    bias: bool = False
    decoder: bool = False


class Description(_Frozen):
    """A base model's layers.

    format: raised whenever the same model would be described otherwise, so that kept descriptions are made anew.
    digest: of config.json and the files' tensor names and shapes, see `layout_digest`.
    transformers: version of the library that built the model. quantisation: `quant_method` of config.json, or empty.
    layers: full module name → what LoRA can adapt, in the model's order.
    others: full name of each other weight matrix (its parameter's for stacked experts) → what it is, in words.
    tied: names of layers that share one weight, in pairs (output head, embedding).
    stacked: module names of experts in the files (`gate_proj`) → the stacked parameter that they become when loaded.
    """

    format: Literal[1] = 1
    digest: str
    transformers: str
    model_type: str
    architecture: str
    quantisation: str = ""
    layers: dict[str, Layer]
    others: dict[str, str] = {}
    tied: tuple[tuple[str, str], ...] = ()
    stacked: dict[str, str] = {}

    def named(self, kinds: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Module name → (out, in) of the layers of these kinds."""
        wanted = set(kinds)
        return {name: layer.shape for name, layer in self.layers.items() if layer.kind in wanted}

    @property
    def embedding(self) -> str:
        """Full name of the input embedding; empty where it is none that LoRA can adapt."""
        return next((name for name, layer in self.layers.items() if layer.kind == "embedding"), "")

    def what_is(self, leaf: str) -> str:
        """What a model has under a module's short name, other than a layer that LoRA can adapt; empty for nothing."""
        if leaf in self.stacked:
            return f"part of the stacked experts ({self.stacked[leaf]})"
        for name, kind in self.others.items():
            if leaf in name.split(".")[-2:]:
                return kind
        fused = {part: whole for whole, parts in _FUSED.items() if whole in self.short_names for part in parts}
        return f"fused into {fused[leaf]}" if leaf in fused else ""

    @property
    def short_names(self) -> frozenset[str]:
        """The last parts of the names of all adaptable layers."""
        return frozenset(name.rpartition(".")[2] for name in self.layers)


# One matrix for what other models keep apart.
_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "query_key_value": ("q_proj", "k_proj", "v_proj"),
    "Wqkv": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


class LayerShapes(dict[str, tuple[int, int]]):
    """Module name → (out, in), with the description and the folder that they come from, where there are such."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        description: Description | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(shapes)
        self.description = description
        self.folder = folder


def describe(folder: Path | str) -> Description:
    """The description of the base model in a folder; made and kept if there is none yet.

    Raises:
        AdapterNotFound: no config.json or no safetensors there.
        UnsupportedBaseModel: transformers builds no causal language model from it; the message says why.
        NotDescribed: it was never described, and torch and transformers are not installed here.
    """
    folder = Path(folder)
    return _described(folder.resolve(), layout_digest(folder))


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


def write_description(folder: Path | str) -> Path:
    """Describe the model and put the description into its folder, for services without torch. Returns the file."""
    description = describe(folder)
    path = Path(folder) / FILE
    _write(path, description)
    return path


@lru_cache(maxsize=64)
def _described(folder: Path, digest: str) -> Description:
    for path in (folder / FILE, _cached(digest)):
        known = _read(path)
        if known is not None and known.digest == digest and known.transformers == _transformers(known.transformers):
            return known
    made = _make(folder, digest)
    try:
        _write(_cached(digest), made)
    except OSError as error:  # a read-only home costs seconds at the next start, nothing else
        log.warning("description of %s is not kept: %s", folder.name, error)
    return made


def _make(folder: Path, digest: str) -> Description:
    if "torch" in sys.modules:
        from lora_core.description_process import build

        return build(folder, digest)
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise NotDescribed(
            f"the layers of base model {folder.name} are not described, and torch is not installed here to do it: run "
            f"`lorafleet models describe` on its folder where torch is, which writes {FILE} into it"
        )
    done = subprocess.run(
        [sys.executable, "-I", "-m", "lora_core.description_process", str(folder), digest],
        env={
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "OMP_NUM_THREADS": "1",
            "HOME": str(Path.home()),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode == _REFUSED:
        raise UnsupportedBaseModel(done.stdout.strip())
    if done.returncode != 0:
        raise RuntimeError(f"describing {folder} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Description.model_validate_json(done.stdout)


def _read(path: Path) -> Description | None:
    try:
        return Description.model_validate_json(path.read_bytes())
    except OSError:
        return None
    except ValidationError:  # of another version of this library, or half of something
        log.warning("%s is no description of layers of this version: made anew", path)
        return None


def _write(path: Path, description: Description) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(description.model_dump(mode="json"), separators=(",", ":")) + "\n"
    replace_file(path, lambda partial: partial.write_text(text))


def _cached(digest: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "lorafleet" / "layers" / f"{digest}.json"


def _transformers(otherwise: str) -> str:
    """The version installed here, which may name layers otherwise than the one before it."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return otherwise
