"""Which Arrow readers open which storage: the table of docs/arrow-format.md, tried. `make test-arrow` tries all of it.

A reader opens a file where the bytes of every column have the digest that the card document has for them. Those that the
tests' own environment has are tried by every run, with the versions that the table names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lora_core import CorruptAdapter, LoRACard, LoRAFormat, LoRAWeights
from lora_core.array import narrow

pytestmark = pytest.mark.requirement("LI-10.5")

SCRIPTS = Path(__file__).parents[2] / "fixtures" / "arrow_readers"
PAGE = Path(__file__).parents[3] / "docs" / "arrow-format.md"
PYTHON = os.environ.get("LORAFLEET_ARROW_PYTHON", "")
JS = os.environ.get("LORAFLEET_ARROW_JS", "")
HERE = ("pyarrow", "polars")
STORAGES = ("float32", "float16", "bfloat16", "int8", "int4", "written by JavaScript")


def card(dtype: str = "float32") -> LoRACard:
    random = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return narrow(random.standard_normal(shape, dtype=np.float32), dtype)

    weights = {f"model.layers.{layer}.q_proj": LoRAWeights(matrix(4, 64), matrix(48, 4)) for layer in range(3)}
    return LoRACard("readers", 4, 8.0, ("q_proj",), weights)


def file_of(storage: str, folder: Path) -> Path:
    path = folder / f"{storage.replace(' ', '-')}.arrow"
    if storage in ("int8", "int4"):
        LoRAFormat.save(card(), path, storage)  # type: ignore[arg-type]
    elif storage == STORAGES[-1]:
        path.write_bytes((SCRIPTS / "written_by_js.arrow").read_bytes())
    else:
        LoRAFormat.save(card(storage), path)
    return path


def digests(path: Path) -> dict[str, str]:
    """Column → sha256, as the card document has them."""
    with pa.memory_map(str(path)) as source:
        document = json.loads(pa.ipc.open_file(source).schema.metadata[b"lorafleet.card"])
    found: dict[str, str] = {}
    for stack in document["stacks"]:
        for tensor in (stack["a"], stack["b"]):
            found[tensor["column"]] = tensor["sha256"]
            if "scales" in tensor:
                found[tensor["scales"]["column"]] = tensor["scales"]["sha256"]
    return found


def tried(command: list[str], folder: Path, where: Path | None = None) -> tuple[str, dict[str, bool]]:
    """A reader's version, and which storages it opens."""
    version, opens = "", {}
    for storage in STORAGES:
        path = file_of(storage, folder)
        done = subprocess.run(
            [*command, str(path)], check=False, capture_output=True, text=True, cwd=where, timeout=120
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else {"columns": {}}
        version = answer.get("version", version)
        opens[storage] = answer["columns"] == digests(path)
    return version, opens


def stated() -> dict[str, tuple[str, dict[str, bool]]]:
    """The page's table: reader → (version, storage → whether it opens it)."""
    rows = re.findall(r"^\| (\S+) (\S+) \|(.+)\|$", PAGE.read_text(), re.M)
    return {
        name: (
            version,
            {storage: cell.strip() == "yes" for storage, cell in zip(STORAGES, cells.split("|"), strict=True)},
        )
        for name, version, cells in rows
        if cells.count("|") == len(STORAGES) - 1
    }


def test_the_page_names_every_reader_that_is_tried() -> None:
    assert list(stated()) == ["pyarrow", "polars", "nanoarrow", "duckdb", "apache-arrow"]


@pytest.mark.parametrize("reader", HERE)
def test_the_readers_of_this_environment_open_what_the_page_says(tmp_path: Path, reader: str) -> None:
    assert tried([sys.executable, str(SCRIPTS / "read.py"), reader], tmp_path) == stated()[reader]


@pytest.mark.heavy
@pytest.mark.parametrize("reader", ["pyarrow", "polars", "nanoarrow", "duckdb", "apache-arrow"])
def test_every_reader_opens_what_the_page_says(tmp_path: Path, reader: str) -> None:
    if not (PYTHON and JS):
        pytest.skip("no environment of readers: `make test-arrow` makes it")
    command = (
        ["node", str(SCRIPTS / "read.mjs")] if reader == "apache-arrow" else [PYTHON, str(SCRIPTS / "read.py"), reader]
    )
    assert tried(command, tmp_path, Path(JS)) == stated()[reader]


def test_a_file_that_javascript_wrote_has_no_schema_in_front_and_is_the_same_adapter(tmp_path: Path) -> None:
    path = file_of(STORAGES[-1], tmp_path)
    LoRAFormat.save(card(), tmp_path / "ours.arrow")
    ours, theirs = LoRAFormat.load(tmp_path / "ours.arrow"), LoRAFormat.load(path)
    assert theirs.digest == ours.digest
    for module, own in ours.weights.items():
        np.testing.assert_array_equal(theirs.weights[module].a, own.a)
        np.testing.assert_array_equal(theirs.weights[module].b, own.b)
    # A schema message has kind 1; here the first one is the record batch.
    assert path.read_bytes().count(b"lorafleet.checksum") == 1


@pytest.mark.heavy
def test_javascript_writes_that_file_today(tmp_path: Path) -> None:
    if not JS:
        pytest.skip("no environment of readers: `make test-arrow` makes it")
    LoRAFormat.save(card(), tmp_path / "ours.arrow")
    command = ["node", str(SCRIPTS / "rewrite.mjs"), str(tmp_path / "ours.arrow"), str(tmp_path / "theirs.arrow")]
    subprocess.run(command, check=True, cwd=JS, timeout=120)
    assert (tmp_path / "theirs.arrow").read_bytes() == (SCRIPTS / "written_by_js.arrow").read_bytes()


def changed(data: bytes, change: Mapping[int, int]) -> bytes:
    made = bytearray(data)
    for place, value in change.items():
        made[place] = value
    return bytes(made)


def test_a_file_without_a_schema_in_front_is_checked_as_closely(tmp_path: Path) -> None:
    data = (SCRIPTS / "written_by_js.arrow").read_bytes()
    path = tmp_path / "changed.arrow"
    refused = 0
    for place in range(0, len(data), 7):
        path.unlink(missing_ok=True)
        path.write_bytes(changed(data, {place: data[place] ^ 0x55}))
        with pytest.raises(CorruptAdapter):
            LoRAFormat.load(path)
        refused += 1
    assert refused > 1000
    for cut in (data[:-1], data[:4000], data[:8] + data[16:], data + b"\0"):
        path.unlink()
        path.write_bytes(cut)
        with pytest.raises(CorruptAdapter):
            LoRAFormat.load(path)


def test_a_footer_whose_block_is_another_place_than_the_first_message_is_refused(tmp_path: Path) -> None:
    """The checksum is right: what is wrong is that readers of the footer would read other bytes than we do."""
    data = (SCRIPTS / "written_by_js.arrow").read_bytes()
    block = (8).to_bytes(8, "little")
    place = data.rindex(block, len(data) - 4000)
    for offset in (0, 16, 1 << 40):
        path = tmp_path / f"{offset}.arrow"
        path.write_bytes(data[:place] + offset.to_bytes(8, "little") + data[place + 8 :])
        with pytest.raises(CorruptAdapter, match="only block has to be the first message"):
            LoRAFormat.load(path)
