"""Which adapters may serve, and what is said of those that may not."""

import numpy as np
import pytest

from lora_core import InvalidAdapter, LoRACard, LoRAWeights, base_model, check_card
from lora_core.array import narrow

Q = "model.layers.0.self_attn.q_proj"


def replaced(card: LoRACard, module: str, a: np.ndarray, b: np.ndarray) -> LoRACard:
    weights = {**card.weights, module: LoRAWeights(a, b)}
    return LoRACard(card.name, card.rank, card.alpha, card.target_modules, weights)


@pytest.mark.requirement("LI-7.6", "LI-7.7")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_good_card_gives_its_manifest(make_card, tiny_shapes, dtype) -> None:
    manifest = check_card(make_card(dtype=dtype, ranks={Q: 6}), tiny_shapes)
    assert (manifest.rank, manifest.max_rank, manifest.alpha, manifest.dtypes) == (4, 6, 6.0, (dtype,))
    assert manifest.modules == tuple(sorted(tiny_shapes))
    expected = sum(4 * (out + inn) for out, inn in tiny_shapes.values()) + 2 * (32 + 32)
    assert manifest.parameters == expected
    assert manifest.bytes == expected * (4 if dtype == "float32" else 2)


@pytest.mark.requirement("LI-7.2", "LI-7.6", "LI-7.7")
def test_what_does_not_fit_the_base_model_is_refused_with_what_would(make_card, tiny_shapes) -> None:
    card = make_card()
    ones = np.ones
    for bad, field, expected in (
        (replaced(card, Q, ones((4, 31), np.float32), ones((32, 4), np.float32)), f"{Q} a shape", "32 inputs"),
        (replaced(card, Q, ones((4, 32), np.float32), ones((33, 4), np.float32)), f"{Q} b shape", "32 outputs"),
        (replaced(card, Q, ones((513, 32), np.float32), ones((32, 513), np.float32)), f"{Q} rank", "at most 512"),
        (replaced(card, "model.layers.9.x", ones((4, 32), np.float32), ones((32, 4), np.float32)), "module", "q_proj"),
        (make_card(alpha=1e6), "alpha", "at most 65536"),
    ):
        with pytest.raises(InvalidAdapter, match=expected) as error:
            check_card(bad, tiny_shapes)
        assert error.value.field == field


def test_a_rank_above_the_narrower_side_of_a_layer_is_right(make_card, tiny_shapes) -> None:
    wide = replaced(make_card(), Q, np.ones((40, 32), np.float32), np.ones((32, 40), np.float32))
    assert check_card(wide, tiny_shapes).max_rank == 40


@pytest.mark.requirement("LI-7.6")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_in_every_dtype(make_card, tiny_shapes, dtype, value) -> None:
    a, b = np.ones((4, 32), np.float32), np.ones((32, 4), np.float32)
    b[7, 3] = value
    bad = replaced(make_card(dtype=dtype), Q, narrow(a, dtype), narrow(b, dtype))
    with pytest.raises(InvalidAdapter, match="finite numbers") as error:
        check_card(bad, tiny_shapes)
    assert error.value.field == f"{Q} b"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_adapter_without_any_effect_is_refused_and_one_with_a_single_number_is_not(
    make_card, tiny_shapes, dtype
) -> None:
    card = make_card(dtype=dtype)
    zeros = {
        module: LoRAWeights(w.a, narrow(np.full(w.b.shape, -0.0, np.float32), dtype))
        for module, w in card.weights.items()
    }
    untrained = LoRACard("x", 4, 4.0, ("q_proj",), zeros)
    with pytest.raises(InvalidAdapter, match="is it untrained"):
        check_card(untrained, tiny_shapes)
    one = np.zeros((32, 4), np.float32)
    one[0, 0] = 1e-3
    check_card(replaced(untrained, Q, card.weights[Q].a, narrow(one, dtype)), tiny_shapes)


def test_shapes_and_revision_are_read_from_the_model_folder(tiny_llama, tiny_shapes, tmp_path) -> None:
    tiny_llama.save_pretrained(tmp_path)
    assert base_model.linear_shapes(tmp_path) == tiny_shapes
    before = base_model.revision(tmp_path)
    assert base_model.revision(tmp_path) == before
    (tmp_path / "README.md").write_text("says nothing about the model")
    assert base_model.revision(tmp_path) == before
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert base_model.revision(tmp_path) != before


def test_a_loaded_model_is_frozen_float32_in_evaluation_mode(tiny_llama, tiny_tokenizer, tmp_path) -> None:
    tiny_llama.half().save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    model, tokenizer = base_model.load(tmp_path)
    assert str(model.dtype) == "torch.float32"
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer("w5 w6")["input_ids"] == [5, 6]
