"""An answer under a form has it, whatever the model's logits are, and its neighbours in the batch notice nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lora_core.engine import ArrowEngine, Request
from lora_core.grammar import ANY_OBJECT, Form, Grammars, UnsuitableForm
from lora_core.sampling import Sampler
from tests.unit.inference.surface import CHATML, byte_tokenizer

pytestmark = pytest.mark.unit

TOKENIZER = byte_tokenizer(CHATML, "[TOOL_CALLS]")
END = 258
SIZE = 272  # of the model's logits: more than the tokenizer has tokens
GRAMMARS = Grammars(TOKENIZER, SIZE, [END])


def answer(form: Form, seed: int, *, temperature: float = 1.0, most: int = 2000) -> str:
    """What is drawn from random logits, which change with every token."""
    sampler = Sampler(Request([1], temperature=temperature, seed=seed, grammar=GRAMMARS.of(form)))
    noise = torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    while len(drawn) < most and not sampler.finished:
        token, _ = sampler.pick(torch.randn(SIZE, generator=noise) * 3)
        if token == END:
            break
        drawn.append(token)
    text = TOKENIZER.decode(drawn, skip_special_tokens=True)
    assert isinstance(text, str)
    return text


NAMES = st.text("abcdefgh", min_size=1, max_size=6)
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.integers(-50, 50).map(lambda low: {"type": "integer", "minimum": low, "maximum": low + 20}),
        st.integers(0, 6).map(lambda most: {"type": "string", "maxLength": most}),
        st.lists(NAMES | st.integers(0, 9), min_size=1, max_size=4, unique_by=repr).map(lambda some: {"enum": some}),
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 3}, inner),
        st.builds(
            lambda fields: {
                "type": "object",
                "properties": fields,
                "required": sorted(fields)[:2],
                "additionalProperties": False,
            },
            st.dictionaries(NAMES, inner, max_size=3),
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(SCHEMAS, st.integers(0, 2**31))
def test_an_answer_under_a_schema_is_json_of_that_schema(schema: dict[str, Any], seed: int) -> None:
    validate(json.loads(answer(Form.of_json(schema), seed)), schema)


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_under_an_expression_matches_it_as_a_whole(seed: int) -> None:
    assert re.fullmatch(r"[A-Z]{2}-[0-9]{3,5}(ä|\?)", answer(Form("regex", r"[A-Z]{2}-[0-9]{3,5}(ä|\?)"), seed))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_under_a_choice_is_one_of_its_texts(temperature: float) -> None:
    texts = ["yes", "no", 'he "quoted" \\ it', "Straße\n", "yes, but"]
    found = {answer(Form.of_choice(texts), seed, temperature=temperature) for seed in range(30)}
    assert found <= set(texts)
    assert len(found) > 1


def test_json_has_no_white_space_that_a_model_could_repeat_for_ever() -> None:
    text = answer(Form.of_json({"enum": [{"a": [1, 2], "b": {}}]}), 1)
    assert text == json.dumps({"a": [1, 2], "b": {}})


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        (Form.of_json({"type": "array", "uniqueItems": True}), "uniqueItems"),
        (Form.of_json({"type": "text"}), "Invalid type: text"),
        (Form.of_json({"$ref": "https://example.org/schema"}), "https://example.org/schema"),
        (Form("regex", "a(?=b)"), "look-around"),
        (Form("regex", "(a"), "unclosed group"),
        (Form("regex", "a" * 300_000), "300000 characters"),
    ],
)
def test_a_form_that_cannot_be_held_is_refused_by_what_is_wrong_with_it(form: Form, fault: str) -> None:
    with pytest.raises(UnsuitableForm, match=re.escape(fault)):
        GRAMMARS.of(form)


def test_a_row_under_a_form_ends_when_the_form_is_complete_and_its_neighbours_answer_as_they_do_alone() -> None:
    torch.manual_seed(3)
    own = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=SIZE, eos_token_id=END, bos_token_id=None, **own)).eval()
    engine = ArrowEngine(model, TOKENIZER, slots=1)
    free = [Request([5, 6, 7], max_tokens=24), Request([9], max_tokens=24, temperature=0.9, seed=4)]
    alone = [list(engine.start([one])) for one in free]
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["n"],
    }
    form = GRAMMARS.of(Form.of_json(schema | {"additionalProperties": False}))
    batch = engine.start([free[0], Request([5, 6, 7], max_tokens=40, grammar=form), free[1]])
    rows: dict[int, list[tuple[int, float]]] = {0: [], 1: [], 2: []}
    for row, token, logprob in batch:
        rows[row].append((token, logprob))
    text = TOKENIZER.decode([token for token, _ in rows[1]])
    assert isinstance(text, str)
    validate(json.loads(text), schema)
    assert batch.finish_reason(1) == "stop"
    assert [[token for token, _ in rows[row]] for row in (0, 2)] == [[token for _, token, _ in one] for one in alone]


def test_a_real_model_writes_the_json_that_it_is_held_to(base_model: Path) -> None:
    engine = ArrowEngine.open(base_model, slots=1)
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 120}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    grammar = Grammars(engine.tokenizer, engine.model.config.vocab_size, engine.stops).of(Form.of_json(schema))
    prompt = engine.tokenizer("Ada Lovelace was 36 years old. As JSON:\n")["input_ids"]
    drawn = [token for _, token, _ in engine.start([Request(prompt, max_tokens=60, grammar=grammar)])]
    validate(json.loads(str(engine.tokenizer.decode(drawn))), schema)


def test_a_form_that_the_tokens_of_a_model_cannot_write_is_refused(tiny_tokenizer: Any) -> None:
    with pytest.raises(UnsuitableForm, match="this base model's tokenizer cannot be followed"):
        Grammars(tiny_tokenizer, 96, [1]).of(ANY_OBJECT)
    letters = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    letters.decoder = decoders.ByteLevel()
    few = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="</s>")
    with pytest.raises(UnsuitableForm, match="no token of this base model can begin such an answer"):
        Grammars(few, 3, [2]).of(ANY_OBJECT)


def test_each_answer_of_a_form_goes_its_own_way() -> None:
    grammar = GRAMMARS.of(ANY_OBJECT)
    first, second = grammar.begin(), grammar.begin()
    first.accept(TOKENIZER("{", add_special_tokens=False)["input_ids"][0])
    logits = torch.zeros(SIZE)
    assert (first.apply(logits).isfinite() != second.apply(logits).isfinite()).any()
