"""Files are checked in a process with limits: what breaks them is refused, and nothing of ours is within its reach."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from lora_core import LoRACard, LoRAFormat, LoRAWeights
from lora_core.interop import to_peft
from lora_core.layer_shapes import LayerShapes
from services.registry import inspection
from services.registry.checkpoint import CannotServe
from services.registry.inspection import Bounds, Inspector
from services.registry.scratch import Scratch
from services.registry.settings import RegistrySettings

pytestmark = pytest.mark.unit
SHAPES = LayerShapes({"layers.0.q_proj": (32, 64)})


def inspector(**changes: object) -> Inspector:
    given = {
        "nats_url": "nats://x", "s3_endpoint": "x", "s3_access_key": "x", "s3_secret_key": "planted-secret", "jwks": "x",
        "base_model": Path("/"), **changes,
    }  # fmt: skip
    return Inspector(Bounds.of(RegistrySettings(**given)))  # type: ignore[arg-type]


def card() -> LoRACard:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 64), np.float32), rng.standard_normal((32, 4), np.float32)
    return LoRACard("test", 4, 8.0, ("q_proj",), {"layers.0.q_proj": LoRAWeights(a, b)})


async def test_a_good_folder_is_converted_and_what_it_became_is_opened_again(tmp_path: Path) -> None:
    to_peft(card(), tmp_path / "peft")
    contents = await inspector().convert(tmp_path / "peft", "good", tmp_path / "artifact", SHAPES)
    assert (contents.rank, contents.alpha, contents.target_modules) == (4, 8.0, ("q_proj",))
    LoRAFormat.save(card(), tmp_path / "int8", "int8")
    forms = [("exports.0.blob", tmp_path / "int8")]
    assert await inspector().open_artifact(tmp_path / "artifact", tmp_path / "peft", SHAPES, forms) == contents
    with pytest.raises(CannotServe) as refused:
        await inspector().open_artifact(
            tmp_path / "artifact",
            tmp_path / "peft",
            SHAPES,
            [("exports.0.blob", tmp_path / "peft/adapter_config.json")],
        )
    assert refused.value.field == "exports.0.blob"


async def test_a_refusal_keeps_its_field_and_names_no_place_on_this_machine(tmp_path: Path) -> None:
    to_peft(card(), tmp_path / "peft")
    (tmp_path / "peft/adapter_config.json").write_text("{")
    with pytest.raises(CannotServe) as refused:
        await inspector().convert(tmp_path / "peft", "bad", tmp_path / "artifact", SHAPES)
    assert refused.value.field == "adapter_config.json"
    assert str(tmp_path) not in str(refused.value)


async def test_what_takes_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A valid header of 65,536 tensors, against a bound far below what it takes."""
    to_peft(card(), tmp_path / "peft")
    header = json.dumps(
        {str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(65_536)}
    ).encode()
    (tmp_path / "peft/adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    monkeypatch.setattr(inspection, "MEMORY_PER_BYTE", 0)
    with pytest.raises(CannotServe, match="more than 16 MiB") as refused:
        await inspector(inspection_bytes=16 << 20).convert(tmp_path / "peft", "x", tmp_path / "artifact", SHAPES)
    assert refused.value.field == "files"


async def test_what_takes_too_long_is_ended_whole(tmp_path: Path) -> None:
    to_peft(card(), tmp_path / "peft")
    with pytest.raises(CannotServe, match=r"took more than 0\.001 s") as refused:
        await inspector(inspection_seconds=0.001).convert(tmp_path / "peft", "x", tmp_path / "artifact", SHAPES)
    assert refused.value.field == "files"
    assert not _children()


def _children() -> list[psutil.Process]:
    found = []
    for one in psutil.Process().children():
        with suppress(psutil.Error):  # it ended meanwhile
            found += [one] if "inspection_process" in " ".join(one.cmdline()) else []
    return found


async def test_the_process_ends_with_the_request_that_waited_for_it(tmp_path: Path) -> None:
    to_peft(card(), tmp_path / "peft")
    waiting = asyncio.create_task(inspector().convert(tmp_path / "peft", "x", tmp_path / "artifact", SHAPES))
    while not _children():
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not _children()


async def test_the_process_has_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_S3_SECRET_KEY", "planted-secret")
    to_peft(card(), tmp_path / "peft")
    checking = asyncio.create_task(inspector().convert(tmp_path / "peft", "x", tmp_path / "artifact", SHAPES))
    seen: list[str] = []
    while not checking.done():
        for child in _children():
            try:
                seen.append(f"{child.environ()} {child.cmdline()}")
            except psutil.Error:
                continue
        await asyncio.sleep(0.005)
    await checking
    assert seen
    assert not [one for one in seen if "planted-secret" in one or "LORAFLEET" in one]


def test_folders_of_killed_processes_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    living = Scratch(tmp_path)
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from services.registry.scratch import Scratch
        scratch = Scratch(Path({str(tmp_path)!r}))
        with scratch.folder() as folder:
            (folder / "upload").write_text("x")
            print(folder, flush=True)
            time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    assert left.is_dir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert left.is_dir()
    with living.folder() as held:
        later = Scratch(tmp_path)
        assert not left.exists()
        assert held.is_dir()
    assert not held.exists()
    later.close()
    living.close()
    assert list(tmp_path.iterdir()) == []
