"""The adapter file: what goes in comes out bit for bit, and nothing else is accepted."""

import hashlib
import json
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lora_core import AdapterNotFound, CorruptAdapter, InvalidAdapter, LoRACard, LoRAFormat, LoRAWeights
from lora_core.array import BFLOAT16, bits, widen


def same(one: LoRACard, two: LoRACard) -> bool:
    fields = ("name", "rank", "alpha", "target_modules", "rslora", "metadata")
    return (
        all(getattr(one, field) == getattr(two, field) for field in fields)
        and one.weights.keys() == two.weights.keys()
        and all(
            mine.dtype == theirs.dtype and mine.shape == theirs.shape and np.array_equal(bits(mine), bits(theirs))
            for module in one.weights
            for mine, theirs in (
                (np.ascontiguousarray(one.weights[module].a), two.weights[module].a),
                (np.ascontiguousarray(one.weights[module].b), two.weights[module].b),
            )
        )
        and all(one.weights[module].alpha == two.weights[module].alpha for module in one.weights)
    )


@pytest.mark.requirement("LI-1.1", "LI-1.2", "LI-1.3", "LI-1.4", "LI-1.5", "LI-1.7")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_saved_card_loads_with_its_metadata_and_every_bit_of_its_weights(tmp_path, make_card, dtype) -> None:
    card = make_card(dtype=dtype, rslora=True)
    digest = LoRAFormat.save(card, tmp_path / "card.arrow")
    loaded = LoRAFormat.load(tmp_path / "card.arrow")
    assert same(card, loaded)
    assert loaded.digest == digest
    assert loaded.dtypes == (dtype,)


_names = st.text(min_size=1, max_size=12).filter(lambda s: s.encode("utf-8", "ignore").decode() == s)


@st.composite
def cards(draw: st.DrawFn) -> LoRACard:
    """Any card: odd names, mixed ranks, shapes, dtypes and alphas, any bit pattern (NaN payloads and -0 too)."""
    weights = {}
    for module in draw(st.lists(_names, min_size=1, max_size=5, unique=True)):
        rank, width, height = (draw(st.integers(1, 9)) for _ in range(3))
        matrices = []
        for shape in ((rank, width), (height, rank)):
            dtype = draw(st.sampled_from(["<f4", "<f2", "bfloat16"]))
            raw = draw(hnp.arrays(np.uint32 if dtype == "<f4" else np.uint16, shape))
            matrices.append(raw.view(BFLOAT16 if dtype == "bfloat16" else dtype))
        alpha = draw(st.none() | st.floats(1e-3, 1e3))
        weights[draw(st.sampled_from([module, f"layers.{len(weights)}.q"]))] = LoRAWeights(*matrices, alpha)
    return LoRACard(
        name=draw(_names),
        rank=draw(st.integers(1, 512)),
        alpha=draw(st.floats(1e-3, 1e4)),
        target_modules=tuple(draw(st.lists(_names, max_size=3))),
        weights=weights,
        metadata=draw(st.dictionaries(_names, _names, max_size=4)),
        rslora=draw(st.booleans()),
    )


@pytest.mark.requirement("LI-1.4", "LI-1.5", "LI-1.7", "LI-9.1")
@settings(max_examples=60, deadline=None)
@given(card=cards())
def test_any_card_survives_the_round_trip_and_saves_to_the_same_digest_again(tmp_path_factory, card) -> None:
    path = tmp_path_factory.mktemp("card") / "card.arrow"
    digest = LoRAFormat.save(card, path)
    loaded = LoRAFormat.load(path)
    assert same(card, loaded)
    assert LoRAFormat.save(loaded, path) == digest


@pytest.mark.requirement("LI-1.4")
def test_any_arrow_reader_opens_the_file_and_sees_canonical_tensors_64_byte_aligned(tmp_path, make_card) -> None:
    card = make_card(dtype="float16", ranks={"model.layers.1.self_attn.q_proj": 3})
    path = tmp_path / "card.arrow"
    LoRAFormat.save(card, path)
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        assert all(isinstance(field.type, pa.FixedShapeTensorType) for field in table.schema)
        # seven projections; the one layer of another rank makes a stack of its own
        assert len(table.schema) == 2 * 8
        stack = table.column("0.model.layers.*.self_attn.q_proj.lora_A").combine_chunks()
        assert stack.to_numpy_ndarray().shape == (1, 2, 4, 32)
        expected = card.weights["model.layers.2.self_attn.q_proj"].a
        assert np.array_equal(stack.to_numpy_ndarray()[0, 1], expected)
    loaded = LoRAFormat.load(path)
    assert all(stack_start(w.a) % 64 == 0 for m, w in loaded.weights.items() if ".0." in m)


def stack_start(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.requirement("LI-10.5")
def test_the_example_reader_of_the_specification_runs(tmp_path, monkeypatch, make_card, capsys) -> None:
    LoRAFormat.save(make_card("contracts", dtype="float16"), tmp_path / "contracts.arrow")
    text = (Path(__file__).parents[3] / "docs" / "arrow-format.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/arrow-format.md", "exec"), {})
    assert capsys.readouterr().out == "contracts model.layers.1.self_attn.q_proj (4, 32)\n"


def test_digest_and_checksum_are_computed_as_the_specification_says(tmp_path, make_card) -> None:
    """A second implementation from the specification's words, over pyarrow's own reading of the file."""
    path = tmp_path / "card.arrow"
    digest = LoRAFormat.save(make_card(dtype="bfloat16"), path)
    data = path.read_bytes()
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        columns = [table.column(i).combine_chunks().to_numpy_ndarray().tobytes() for i in range(len(table.schema))]
    metadata = table.schema.metadata
    document = json.loads(metadata[b"lorafleet.card"])
    assert hashlib.sha256(metadata[b"lorafleet.card"]).hexdigest() == digest == metadata[b"lorafleet.digest"].decode()
    tensors = [tensor for stack in document["stacks"] for tensor in (stack["a"], stack["b"])]
    assert [tensor["sha256"] for tensor in tensors] == [hashlib.sha256(column).hexdigest() for column in columns]
    assert all(data.index(column) % 64 == 0 for column in columns)
    seal = metadata[b"lorafleet.checksum"]
    assert data.count(seal) == 2
    assert xxhash.xxh3_128_hexdigest(data.replace(seal, b"0" * 32)) == seal.decode()


@pytest.mark.requirement("LI-1.5", "LI-1.6", "LI-6.4")
def test_loading_maps_the_file_and_copies_no_weights(tmp_path, make_card) -> None:
    LoRAFormat.save(make_card(), tmp_path / "card.arrow")
    loaded = LoRAFormat.load(tmp_path / "card.arrow")
    for weights in loaded.weights.values():
        for matrix in (weights.a, weights.b):
            assert not matrix.flags.owndata
            assert not matrix.flags.writeable
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split()[0].split("-") for line in maps if line.endswith(str(tmp_path / "card.arrow"))]
    low, high = int(mapped[0][0], 16), int(mapped[0][1], 16)
    assert all(low <= w.b.ctypes.data < high for w in loaded.weights.values())


@pytest.mark.requirement("LI-7.1", "LI-9.6")
def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(AdapterNotFound, match=r"no adapter file at .*gone\.arrow"):
        LoRAFormat.load(tmp_path / "gone.arrow")


@pytest.mark.requirement("LA-1.6")
def test_a_flipped_bit_in_any_byte_of_a_file_is_noticed(tmp_path) -> None:
    weights = LoRAWeights(np.ones((1, 3), np.float16), np.ones((2, 1), np.float16))
    path = tmp_path / "card.arrow"
    LoRAFormat.save(LoRACard("x", 1, 1.0, ("q",), {"q": weights}, {"k": "v"}), path)
    good = path.read_bytes()
    missed = []
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position * 5 % 8
        path.write_bytes(bad)
        try:
            LoRAFormat.load(path)
            missed.append(position)
        except CorruptAdapter:
            pass
    assert missed == []


@pytest.mark.requirement("LA-1.6")
def test_a_file_cut_at_any_length_is_refused(tmp_path, make_card) -> None:
    path = tmp_path / "card.arrow"
    LoRAFormat.save(make_card(only=("q_proj",)), path)
    good = path.read_bytes()
    for length in [*range(0, 400), *range(400, len(good), 37), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(CorruptAdapter):
            LoRAFormat.load(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(CorruptAdapter):
        LoRAFormat.load(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_file_with_scrambled_bytes_is_refused_and_never_crashes(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.getbasetemp() / "scrambled"
    folder.mkdir(exist_ok=True)
    good_path = folder / "good.arrow"
    if not good_path.exists():
        weights = LoRAWeights(np.ones((2, 8), np.float32), np.ones((4, 2), np.float32))
        LoRAFormat.save(LoRACard("x", 2, 4.0, ("q",), {"layers.0.q": weights, "layers.1.q": weights}), good_path)
    bad = bytearray(good_path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(bad) - 8))
        value = data.draw(st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 2**62, -(2**62)]) | st.integers(0, 2**40))
        bad[at : at + 8] = struct.pack("<q", value)
    path = folder / "bad.arrow"
    path.write_bytes(bad)
    if bytes(bad) != good_path.read_bytes():
        with pytest.raises(CorruptAdapter):
            LoRAFormat.load(path)


def test_foreign_files_are_refused_by_what_they_are(tmp_path) -> None:
    path = tmp_path / "foreign"
    table = pa.table({"x": [1, 2, 3]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(CorruptAdapter, match="not a LoRA adapter"):
        LoRAFormat.load(path)
    for content, reason in ((b"PK\3\4" + bytes(100), "not an Arrow IPC file"), (b"", "empty")):
        path.write_bytes(content)
        with pytest.raises(CorruptAdapter, match=reason):
            LoRAFormat.load(path)


def test_a_compressed_copy_is_refused_before_anything_is_decompressed(tmp_path, make_card) -> None:
    path = tmp_path / "card.arrow"
    LoRAFormat.save(make_card(), path)
    with pa.OSFile(str(path), "rb") as source:
        table = pa.ipc.open_file(source).read_all()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    with pytest.raises(CorruptAdapter, match="compressed"):
        LoRAFormat.load(path)


def test_a_file_that_declares_huge_tensors_is_refused_without_allocating_them(tmp_path) -> None:
    path = tmp_path / "huge.arrow"
    weights = LoRAWeights(np.ones((1, 16), np.float32), np.ones((16, 1), np.float32))
    LoRAFormat.save(LoRACard("x", 1, 1.0, ("q",), {"q": weights}), path)
    bad = path.read_bytes().replace(struct.pack("<i", 16), struct.pack("<i", 2**31 - 1))
    assert bad != path.read_bytes()
    path.write_bytes(bad)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptAdapter):
        LoRAFormat.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.requirement("LI-7.2", "LI-7.6")
def test_an_impossible_card_is_refused_where_it_is_made(make_card) -> None:
    good = LoRAWeights(np.ones((2, 4), np.float32), np.ones((3, 2), np.float32))
    for field, expected, fields in (
        ("rank", "at least 1", {"rank": 0}),
        ("alpha", "above 0", {"alpha": float("nan")}),
        ("alpha", "above 0", {"alpha": -1.0}),
        ("name", "1 to 512", {"name": ""}),
        ("q shapes", "of one rank", {"weights": {"q": LoRAWeights(good.a, np.ones((3, 3), np.float32))}}),
        ("q.a dtype", "float32", {"weights": {"q": LoRAWeights(good.a.astype(np.float64), good.b)}}),
        ("weights", "at least one", {"weights": {}}),
    ):
        card = {"name": "x", "rank": 2, "alpha": 2.0, "target_modules": ("q",), "weights": {"q": good}} | fields
        with pytest.raises(InvalidAdapter, match=expected) as error:
            LoRACard(**card)
        assert error.value.field == field


def test_bfloat16_bits_cannot_be_mistaken_for_numbers(make_card) -> None:
    array = make_card(dtype="bfloat16").weights["model.layers.0.self_attn.q_proj"].a
    with pytest.raises((TypeError, ValueError)):
        array.astype(np.float32)
    with pytest.raises(TypeError):
        array * 2
    assert np.isfinite(widen(array)).all()


def test_opening_and_checking_adapters_never_imports_torch() -> None:
    script = (
        "import sys, lora_core, lora_core.format.arrow_format, lora_core.base_model, lora_core.interop, lora_core.validation;"
        "lora_core.LoRAFormat, lora_core.LoRACard, lora_core.check_card;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_largest_rank_is_read_without_the_tensors(make_card, tmp_path) -> None:
    path = tmp_path / "a.arrow"
    card = make_card("a", 4, 1, ranks={"model.layers.1.mlp.down_proj": 9})
    LoRAFormat.save(card, path)
    assert LoRAFormat.max_rank(path) == card.max_rank == 9
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CorruptAdapter):
        LoRAFormat.max_rank(path)
