"""Adapter files made to cost time or memory, or to crash their reader: refused with a reason, and fast."""

import json
import re
import struct
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lora_core.errors import AdapterError, CorruptAdapter, InvalidAdapter, UnsupportedAdapter
from lora_core.format.safetensors_file import map_weights, write_weights
from lora_core.format.safetensors_header import MAX_HEADER, MAX_TENSORS, read_header
from lora_core.interop import from_peft
from lora_core.interop.peft_patterns import ModulePatterns

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
MODULES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(12) for name in "qkvo"]


def folder_of(at: Path, modules: list[str], raw: str | None = None, **config: object) -> Path:
    arrays = {}
    for module in modules:
        arrays[f"base_model.model.{module}.lora_A.weight"] = np.ones((2, 4), np.float32)
        arrays[f"base_model.model.{module}.lora_B.weight"] = np.ones((4, 2), np.float32)
    write_weights(at / "adapter_model.safetensors", arrays, {})
    (at / "adapter_config.json").write_text(json.dumps(CONFIG | config) if raw is None else raw)
    return at


def peft_rule(keys: list[str], module: str) -> int | None:
    """The body of peft.utils.other.get_pattern_key (peft 0.21)."""
    return next((at for at, key in enumerate(keys) if re.match(rf"(.*\.)?({key})$", module)), None)


PIECES = st.sampled_from(
    ["model", "layers", r"\.", ".", "1", r"\d", r"\d+", r"\d{1,2}", "(q|k)_proj", "q_proj", r"self\_attn".replace("\\", ""), "[qk]", "_proj", ".*", "(0|1)", "a", "^model"]
)  # fmt: skip
KEYS = st.lists(PIECES, min_size=1, max_size=5).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(KEYS, max_size=6, unique=True), st.sampled_from([*MODULES, "a", "q_proj", "modelxlayersy1", "lm_head"]))
@example(["layers.1.self_attn.q_proj", "q_proj"], "model.layers.1.self_attn.q_proj")
@example([r"layers\.(0|1)\.self_attn\.q_proj"], "model.layers.1.self_attn.q_proj")
@example(["layers.1"], "model.layersx1")
def test_a_pattern_means_what_peft_takes_it_for(keys: list[str], module: str) -> None:
    warnings.simplefilter("ignore")
    ours = ModulePatterns("alpha_pattern", {key: float(at) for at, key in enumerate(keys)}).value_of(module)
    assert ours == peft_rule(keys, module)


@pytest.mark.parametrize(
    "key", ["(a?){25}a{25}x", "(.*a){20}x", r"(\w+\.?)+!", "(a|aa)+$", ".*.*.*.*.*.*.*x", "((a{0,5}){0,5}){0,5}"]
)
def test_a_slow_pattern_is_fast(tmp_path: Path, key: str) -> None:
    folder = folder_of(tmp_path, ["a" * 200 + f".m{number}" for number in range(50)], rank_pattern={key: 2})
    started = time.process_time()
    from_peft(folder)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("key", [r"(?<=q)_proj", r"(?!k)q_proj", r"(q)_proj\1", "(?>q)_proj", "(q_proj", "x{1000}"])
def test_what_cannot_be_matched_in_linear_time_is_refused_by_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(UnsupportedAdapter, match="alpha_pattern is"):
        from_peft(folder_of(tmp_path, ["q_proj"], alpha_pattern={key: 2}))


def test_forty_thousand_keys_are_looked_up(tmp_path: Path) -> None:
    keys = {f"model.layers.{number}.q_proj": 2 for number in range(40_000)}
    folder = folder_of(tmp_path, [f"model.layers.{number}.q_proj" for number in range(500)], rank_pattern=keys)
    started = time.process_time()
    assert len(from_peft(folder).weights) == 500
    assert time.process_time() - started < 3  # was over 40 s


def test_names_with_all_kinds_of_dots_are_refused_when_they_add_up() -> None:
    """Each with its dots elsewhere, so that no two are looked up together."""
    keys = {
        "".join("." if number >> bit & 1 else "a" for bit in range(16)) + "a" * 200: 1.0 for number in range(20_000)
    }
    patterns = ModulePatterns("rank_pattern", keys)
    started = time.process_time()
    with pytest.raises(UnsupportedAdapter, match="fewer patterns"):
        for _ in range(1_000):
            patterns.value_of("b" * 216)
    assert time.process_time() - started < 20  # about 4 s


def test_many_true_patterns_are_refused() -> None:
    with pytest.raises(UnsupportedAdapter, match="at most 64"):
        ModulePatterns("rank_pattern", {f"(q|k){number}": 1.0 for number in range(65)})


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"lora_alpha": 10**3_999}, "lora_alpha: an integer of more than 64 bits"),
        ({"r": -(10**3_999)}, "r: an integer of more than 64 bits"),
        ({"alpha_pattern": {"q_proj": 10**400}}, "alpha_pattern: an integer of more than 64 bits"),
        ({"lora_alpha": float("nan")}, "not JSON"),
        ({"base_model_name_or_path": "x" * 5_000}, "a text of at most 4096 characters"),
        ({"revision": ["x"]}, "a text of at most 4096 characters"),
        ({"task_type": "a\x00b"}, "task_type: text with half a character or NUL"),
        ({"alpha_pattern": {"\ud800": 1}}, "half a character|not JSON"),
        ({"target_modules": ["x" * 300_000]}, ""),
        ({"anything": ["x" * 300_000]}, "anything is"),
    ],
)
def test_a_value_that_no_reader_could_hold_is_refused_by_its_field(tmp_path: Path, config: dict, named: str) -> None:
    folder = folder_of(tmp_path, ["q_proj"], **config)
    if not named:
        assert from_peft(folder).rank == 2
        return
    with pytest.raises((CorruptAdapter, InvalidAdapter), match=named) as refused:
        from_peft(folder)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize(
    "raw",
    ["9" * 5_000, '{"r": ' + "9" * 5_000 + "}", "[" * 100_000, '{"a":' * 40 + "1" + "}" * 40, '{"r": 1e999}', "{" + " " * (5 << 20) + "}"],
    ids=["number", "digits", "brackets", "nested", "overflow", "long"],
)  # fmt: skip
def test_a_configuration_that_is_no_plain_json_is_refused(tmp_path: Path, raw: str) -> None:
    with pytest.raises(CorruptAdapter) as refused:
        from_peft(folder_of(tmp_path, ["q_proj"], raw=raw))
    assert len(str(refused.value)) < 1_000


def header_file(at: Path, header: bytes) -> Path:
    at.write_bytes(struct.pack("<Q", len(header)) + header)
    return at


def many(count: int) -> bytes:
    one = '"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    return ("{" + ",".join(one.format(number) for number in range(count)) + "}").encode()


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (b"[" + b"0," * 8_000_000 + b"0]", "more than 65536 tensors"),
        (b"{" + b'"":[],' * 3_000_000 + b'"":[]}', "header of 18000007 bytes, at most"),
        (b"[" * 1_000_000, "more than 65536 tensors"),
        (b"[" * 500_000, "not JSON"),
        (b'{"a":' + b"9" * 10_000_000 + b"}", "."),
        (b'{"' + b"a" * 2_000 + b'":{}}', "2000 characters, at most 1024"),
        (b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', "impossible shape"),
        (b'{"a":{"dtype":"F32","shape":[],"data_offsets":[false,4]}}', "no places in a file"),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 4_000 + b'],"data_offsets":[0,4]}}', "impossible shape|not JSON"),
        (b'{"a":{"dtype":"F32","shape":[' + b"1," * 100_000 + b'1],"data_offsets":[0,4]}}', "impossible shape"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[' + b"9" * 4_000 + b",4]}}", "no places|not JSON"),
    ],
    ids=range(11),
)
def test_a_header_is_refused_before_it_costs(tmp_path: Path, header: bytes, named: str) -> None:
    at = header_file(tmp_path / "adapter_model.safetensors", header)
    tracemalloc.start()
    try:
        started = time.process_time()
        with pytest.raises(CorruptAdapter, match=named) as refused:
            read_header(at)
        seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (seconds < 2, peak < 100 << 20, len(str(refused.value)) < 1_000) == (True, True, True), (seconds, peak)


def test_a_header_of_twenty_megabytes_is_refused_unread(tmp_path: Path) -> None:
    at = header_file(tmp_path / "adapter_model.safetensors", many(340_000))
    assert at.stat().st_size > MAX_HEADER
    tracemalloc.start()
    with pytest.raises(CorruptAdapter, match="at most"):
        read_header(at)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20  # was 548 MB


def test_one_tensor_too_many_is_refused_and_the_most_that_may_be_are_read(tmp_path: Path) -> None:
    assert len(read_header(header_file(tmp_path / "fits", many(MAX_TENSORS)))) == MAX_TENSORS
    with pytest.raises(CorruptAdapter, match=f"{MAX_TENSORS + 1} tensors, at most"):
        read_header(header_file(tmp_path / "over", many(MAX_TENSORS + 1)))


def test_every_refusal_is_an_adapter_error(tmp_path: Path) -> None:
    """Whatever stands in a header's place, nothing else than AdapterError comes out."""
    for header in (
        b"",
        b"null",
        b"{}",
        b'{"a":1}',
        b'{"a":{"dtype":1}}',
        b"\xff\xfe",
        b'{"\\ud800":{}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}',
    ):
        at = header_file(tmp_path / "file", header)
        try:
            map_weights(at)
        except AdapterError:
            continue
        assert header == b"{}", header  # a file of no tensors is one
