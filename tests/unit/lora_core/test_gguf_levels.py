"""llama.cpp's quantisation levels: blocks that the package `gguf` reads back, and which matrix gets which kind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM

from lora_core import LoRACard, LoRAWeights, UnsupportedAdapter
from lora_core.base_model import linear_shapes
from lora_core.compression_quality import matrix_error
from lora_core.errors import InvalidAdapter
from lora_core.interop import from_gguf, to_gguf
from lora_core.interop.gguf import block_kinds
from lora_core.interop.gguf_blocks import quantise_rows

pytestmark = pytest.mark.requirement("AS-2.3")

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.standard_normal((16, 1024), dtype=np.float32)


def model_of_nine_layers(folder: Path) -> Path:
    """A Llama whose rows are 256 and 512 wide, saved."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=32, hidden_size=256, intermediate_size=512, num_hidden_layers=9, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_of_nine_layers(tmp_path_factory.mktemp("model"))


def card_for(model: Path, rank: int) -> LoRACard:
    random = np.random.default_rng(rank)
    weights = {
        module: LoRAWeights(
            random.standard_normal((rank, inside), dtype=np.float32),
            random.standard_normal((outside, rank), dtype=np.float32),
        )
        for module, (outside, inside) in linear_shapes(model).items()
    }
    return LoRACard("levels", rank, 16.0, ("q_proj",), weights)


@pytest.mark.parametrize(("kind", "bits", "error"), [("Q4_K", 4.5, 0.075), ("Q6_K", 6.5625, 0.02)])
def test_super_blocks_take_their_bits_and_are_read_back_close(kind: str, bits: float, error: float) -> None:
    packed = quantise_rows(NORMAL, kind)  # type: ignore[arg-type]
    assert packed.nbytes * 8 == bits * NORMAL.size
    back = dequantize(packed, GGMLQuantizationType[kind])
    assert np.linalg.norm(back - NORMAL) / np.linalg.norm(NORMAL) < error


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
def test_numbers_that_the_blocks_can_hold_come_back_as_they_were(kind: str) -> None:
    exact = np.tile(np.arange(16, dtype=np.float32) - 8, (2, 16)) if kind == "Q4_K" else np.zeros((2, 256), np.float32)
    if kind == "Q6_K":
        exact[:] = np.tile(np.concatenate([[-32], RANDOM.integers(-31, 32, 15)]), 16) * 0.5
    back = dequantize(quantise_rows(exact, kind), GGMLQuantizationType[kind])  # type: ignore[arg-type]
    np.testing.assert_allclose(back, exact, rtol=0, atol=2e-3 * np.abs(exact).max())
    nothing = np.zeros((1, 256), np.float32)
    assert not dequantize(quantise_rows(nothing, kind), GGMLQuantizationType[kind]).any()  # type: ignore[arg-type]
    with pytest.raises(InvalidAdapter, match="finite and at most 1e6"):
        quantise_rows(np.full((1, 256), np.inf, np.float32), kind)  # type: ignore[arg-type]


def test_values_and_down_projections_of_some_layers_get_finer_blocks_at_q4_k_m() -> None:
    kinds = [block_kinds("q4_k_m", f"blk.{layer}.ffn_down.weight", layer, 32, 256) for layer in range(32)]
    finer = [*range(4), 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert [layer for layer, kind in enumerate(kinds) if kind == "Q6_K"] == finer
    assert {block_kinds("q4_k_m", "blk.0.attn_q.weight", layer, 32, 256) for layer in range(32)} == {"Q4_K"}


@pytest.mark.parametrize(
    ("level", "width", "kind"),
    [
        ("q4_k_m", 512, "Q4_K"), ("q4_k_m", 576, "Q5_0"), ("q4_k_m", 16, None), ("q6_k", 512, "Q6_K"),
        ("q6_k", 576, "Q8_0"), ("q6_k", 8, None), ("q8_0", 576, "Q8_0"), ("q8_0", 48, None),
    ],
)  # fmt: skip
def test_rows_that_the_blocks_do_not_fit_get_what_llama_cpp_falls_back_to(
    level: str, width: int, kind: str | None
) -> None:
    assert block_kinds(level, "blk.1.attn_q.weight", 1, 9, width) == kind  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("level", "file_type", "kinds", "error"),
    [
        ("q8_0", 7, {"Q8_0": 126}, 0.006),
        ("q6_k", 18, {"Q6_K": 63, "Q8_0": 63}, 0.02),
        ("q4_k_m", 15, {"Q4_K": 53, "Q6_K": 10, "Q5_0": 53, "Q8_0": 10}, 0.08),
    ],
)
def test_a_file_of_a_level_has_its_blocks_and_is_read_back_as_nearly_the_same_adapter(
    model: Path, tmp_path: Path, level: str, file_type: int, kinds: dict[str, int], error: float
) -> None:
    card = card_for(model, rank=32)
    to_gguf(card, tmp_path / "card.gguf", model, quantisation=level)  # type: ignore[arg-type]
    reader = gguf.GGUFReader(tmp_path / "card.gguf")
    assert int(reader.fields["general.file_type"].parts[-1][0]) == file_type
    assert Counter(tensor.tensor_type.name for tensor in reader.tensors) == kinds
    back = from_gguf(tmp_path / "card.gguf", model)
    assert 0 < matrix_error(card, back) < error
    to_gguf(card, tmp_path / "plain.gguf", model)
    smaller = (tmp_path / "card.gguf").stat().st_size / (tmp_path / "plain.gguf").stat().st_size
    assert smaller < {"q8_0": 0.28, "q6_k": 0.26, "q4_k_m": 0.2}[level]


def test_a_level_whose_blocks_no_matrix_fits_is_refused_for_it_would_be_another(tiny_llama, tmp_path: Path) -> None:
    tiny_llama.save_pretrained(tmp_path / "tiny")
    with pytest.raises(UnsupportedAdapter, match=r"expected another level: no row of \[32, 80\] numbers is a multiple"):
        to_gguf(card_for(tmp_path / "tiny", 4), tmp_path / "card.gguf", tmp_path / "tiny", quantisation="q4_k_m")
