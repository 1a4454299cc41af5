"""Quantised storage: what it holds, what it costs, and that a file which lost too much is not kept."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lora_core import ArrowEngine, CorruptAdapter, InvalidAdapter, LoRACard, LoRAFormat, LoRAWeights
from lora_core.array import narrow, widen
from lora_core.compression_quality import compress, matrix_error, measure_difference
from lora_core.profiles import DEFAULT, PROFILES, QuantisationProfile, profile_of
from lora_core.quantisation import dequantise, quantise

PROMPTS = [[5, 17, 42, 8, 60], [3, 9], [80, 2, 44, 44, 7, 21, 90]]


@pytest.fixture
def engine(tiny_llama, tiny_tokenizer) -> ArrowEngine:
    return ArrowEngine(tiny_llama, tiny_tokenizer, slots=2, max_rank=16)


@pytest.mark.requirement("AS-2.3")
@pytest.mark.parametrize(("storage", "largest"), [("int8", 127), ("int4", 7)])
@settings(max_examples=80, deadline=None)
@given(
    array=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=70), elements=st.floats(-100, 100, width=32)
    )
)
def test_every_number_comes_back_within_half_a_step_of_its_blocks_scale(storage, largest, array) -> None:
    packed = quantise(array, storage)
    back = dequantise(packed, storage, array.shape[-1], "float32")
    steps = np.repeat(packed.scales.astype(np.float32), 32, axis=-1)[..., : array.shape[-1]]
    # A scale is itself rounded to float16 (2⁻¹¹ relative, or below its smallest step), which moves the largest number.
    allowed = steps / 2 + largest * (steps * 2.0**-10 + 2.0**-25) + 1e-12
    assert (np.abs(back - array) <= allowed).all()
    again = quantise(back, storage)
    assert (
        np.array_equal(dequantise(again, storage, array.shape[-1], "float32"), back)
        or np.abs(dequantise(again, storage, array.shape[-1], "float32") - back).max() <= steps.max() / 2
    )


def test_the_layout_of_quantised_numbers_is_the_documented_one() -> None:
    row = np.zeros((1, 33), np.float32)
    row[0, :3], row[0, 32] = (7.0, -7.0, 1.4), 0.5
    int4 = quantise(row, "int4")
    assert int4.values.shape == (1, 17)
    assert int4.values[0, :2].tolist() == [(7 + 8) | ((-7 + 8) << 4), (1 + 8) | (8 << 4)]
    assert int4.scales.tolist() == [[1.0, np.float16(0.5 / 7)]]
    int8 = quantise(row, "int8")
    assert int8.values[0, [0, 1, 32]].tolist() == [127, -127, 127]


def test_numbers_that_no_scale_can_hold_are_refused() -> None:
    with pytest.raises(InvalidAdapter, match="at most"):
        quantise(np.full((1, 4), 3e38, np.float32), "int8")


@pytest.mark.requirement("AS-2.3")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("storage", "error"), [("int8", 0.01), ("int4", 0.15)])
def test_a_quantised_file_is_smaller_opens_in_any_reader_and_loads_in_the_dtype_it_had(
    tmp_path, make_card, dtype, storage, error
) -> None:
    card = make_card(dtype=dtype, rank=8)
    digest = LoRAFormat.save(card, tmp_path / "small.arrow", storage)
    loaded = LoRAFormat.load(tmp_path / "small.arrow")
    assert (loaded.digest, loaded.dtypes) == (digest, (dtype,))
    assert 0 < matrix_error(card, loaded) < error
    with pa.memory_map(str(tmp_path / "small.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    assert all(isinstance(field.type, pa.FixedShapeTensorType) for field in table.schema)
    assert table.nbytes < card.bytes * {"int8": 0.6, "int4": 0.4}[storage] * 2 / widen(card.stacks[0].a).itemsize * 2
    path = tmp_path / "small.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptAdapter, match="altered"):
        LoRAFormat.load(path)


@pytest.mark.requirement("AS-2.3")
def test_drift_is_nothing_for_the_same_adapter_and_grows_with_fewer_bits(engine, make_card, tmp_path) -> None:
    card = make_card(rank=8)
    same = measure_difference(engine, card, card, PROMPTS)
    assert (same.agreement, same.positions) == (1.0, 14)
    # Two rows of one batch are not promised the same rounding: 1e-6 was seen, a fault of ours would be far larger.
    assert (same.divergence, same.logit) == pytest.approx((0.0, 0.0), abs=1e-4)
    found = []
    for storage in ("int8", "int4"):
        LoRAFormat.save(card, tmp_path / storage, storage)
        found.append(measure_difference(engine, card, LoRAFormat.load(tmp_path / storage), PROMPTS))
    assert 0 < found[0].divergence < found[1].divergence
    assert 0 < found[0].logit < found[1].logit
    assert engine.loaded == ()


@pytest.mark.requirement("AS-2.3", "AS-7.1")
def test_a_compressed_adapter_is_kept_only_if_it_passes_on_the_validation_prompts(engine, make_card, tmp_path) -> None:
    card = make_card(rank=8)
    kept = compress(card, tmp_path / "kept.arrow", profile_of("workflow-builder", "server"), engine, PROMPTS)
    assert kept.difference.agreement >= 0.98
    assert kept.bytes == (tmp_path / "kept.arrow").stat().st_size
    assert LoRAFormat.load(kept.path).digest == kept.digest
    impossible = QuantisationProfile("none", "int4", 1.01, 0.75, 2.0)
    with pytest.raises(InvalidAdapter, match="keep this adapter in a larger storage") as error:
        compress(card, tmp_path / "gone.arrow", impossible, engine, PROMPTS)
    assert error.value.field == "agreement"
    assert not (tmp_path / "gone.arrow").exists()


@pytest.mark.requirement("AS-7.1")
def test_the_profile_table_is_by_adapter_type_and_device_with_a_default() -> None:
    mobile = profile_of("intent-classifier", "mobile")
    assert (mobile.level, mobile.quality_threshold, mobile.size_reduction, mobile.speed_gain) == (
        "Q4_K_M",
        0.85,
        0.75,
        2,
    )
    assert profile_of("content-generator", "desktop").level == "Q6_K"
    assert profile_of("workflow-builder", "server").level == "Q8_0"
    assert profile_of("intent-classifier", "server") is profile_of("anything", "mobile") is DEFAULT
    assert DEFAULT.storage == "plain"
    with pytest.raises(TypeError):
        PROFILES["x", "server"] = DEFAULT  # type: ignore[index]


def test_vectors_stay_plain_beside_quantised_matrices(tmp_path, make_card) -> None:
    card = make_card(rank=4)
    weights = {
        m: LoRAWeights(w.a, w.b, None, narrow(np.ones(len(w.b), np.float32) * 1.3, "float16"))
        for m, w in card.weights.items()
    }
    LoRAFormat.save(LoRACard("dora", 4, 4.0, ("q_proj",), weights), tmp_path / "x.arrow", "int4")
    loaded = LoRAFormat.load(tmp_path / "x.arrow")
    for module, own in weights.items():
        assert np.array_equal(loaded.weights[module].magnitude, own.magnitude)
