"""What layers a base model has: described once per revision, kept by digest, read by everybody. No torch.

Names, shapes and kinds are those of the model that transformers builds, which need not be the names in its files: these
may lack a prefix, have one more, hold experts one by one that become one stacked parameter, or packed integers. The
model is built without weights (`description_process`), in a process of its own where torch is not loaded anyway. Where
torch is not installed, the description has to be there already: in the folder (`lorafleet models describe`), or in the
cache below the user's cache folder.
"""

import json
import logging
import os
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from lora_core.errors import NotDescribed, UnsupportedBaseModel
from lora_core.layer_shapes import Description
from lora_core.model_files import layout_digest
from lora_core.replace_file import replace_file

FILE = "lorafleet-layers.json"
"""Name of a description inside a base model's folder."""
_SECONDS = 600.0  # importing torch on a busy machine takes tens of them
_REFUSED = 3  # exit status of `lora_core.description_process` for a model that transformers cannot build

log = logging.getLogger(__name__)


def describe(folder: Path | str) -> Description:
    """The description of the base model in a folder; made and kept if there is none yet.

    Raises:
        AdapterNotFound: no config.json or no safetensors there.
        UnsupportedBaseModel: transformers builds no causal language model from it; the message gives the reason.
        NotDescribed: it was never described, and torch and transformers are not installed here.
    """
    folder = Path(folder)
    return _described(folder.resolve(), layout_digest(folder))


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
        log.warning("description_not_cached model=%s reason=%s", folder.name, error)
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
        log.warning("description_outdated path=%s", path)
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
