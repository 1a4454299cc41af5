"""The engine against the merged model and against PEFT: the same numbers, whatever else is in the batch."""

import copy

import numpy as np
import pytest
import torch
from peft import PeftModel

from lora_core import AdapterNotFound, ArrowEngine, InvalidAdapter, LoRAFormat, Request, SlotsFull
from lora_core.array import widen
from lora_core.interop import to_peft

PROMPT = [5, 17, 42, 8]
PROMPTS = [[5, 17, 42, 8], [9], [11, 12, 13, 14, 15, 16, 17, 18, 19], [60, 61]]


@pytest.fixture
def engine(tiny_llama, tiny_tokenizer) -> ArrowEngine:
    return ArrowEngine(tiny_llama, tiny_tokenizer, slots=6, max_rank=8)


def merged(model, card):
    """The model with the adapter added into its weights: the definition of what an adapter does."""
    model = copy.deepcopy(model)
    for module in model.modules():
        module._forward_hooks.clear()
    for name, weights in card.weights.items():
        delta = torch.from_numpy(widen(weights.b) @ widen(weights.a)) * card.scaling(name)
        with torch.no_grad():
            model.get_submodule(name).weight.add_(delta)
    return model


def greedy(model, prompt, count):
    """Greedy tokens by the plainest loop: no cache, no padding, no batch."""
    ids = list(prompt)
    for _ in range(count):
        token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == 1:
            break
        ids.append(token)
    return ids[len(prompt) :]


def run(engine, requests):
    batch = engine.start(requests)
    tokens = [[] for _ in requests]
    while batch.alive:
        for row, token, _ in batch.step():
            tokens[row].append(token)
    return tokens


def test_every_row_of_a_mixed_batch_answers_as_the_merged_model_of_its_own_adapter(engine, make_card) -> None:
    cards = {name: make_card(name, rank, seed) for seed, (name, rank) in enumerate([("a", 4), ("b", 8), ("c", 1)])}
    base = copy.deepcopy(engine.model)
    for module in base.modules():
        module._forward_hooks.clear()
    for card in cards.values():
        engine.load(card)
    # neighbours, gaps, repeats and no adapter at all, in an order that is not the slots'
    adapters = ["c", None, "a", "b", "a", None, "c", "b", "a"]
    requests = [Request(PROMPTS[i % 4], adapter, max_tokens=12) for i, adapter in enumerate(adapters)]
    answers = run(engine, requests)
    models = {name: merged(base, card) for name, card in cards.items()} | {None: base}
    for request, answer in zip(requests, answers, strict=True):
        assert answer == greedy(models[request.adapter], request.prompt_ids, 12), request
    assert len({tuple(answers[i]) for i in (0, 4, 8)}) > 1


@pytest.mark.requirement("LI-9.5")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rslora", [False, True])
def test_logits_equal_pefts_within_1e5(engine, make_card, tmp_path, dtype, rslora) -> None:
    module = "model.layers.1.mlp.up_proj"
    card = make_card(rank=4, seed=3, dtype=dtype, rslora=rslora, ranks={module: 7}, alpha=5.0)
    to_peft(card, tmp_path / "peft")
    reference = PeftModel.from_pretrained(copy.deepcopy(engine.model), tmp_path / "peft").eval()
    for inner in reference.modules():
        inner._forward_hooks.clear()
    engine.load(card)
    with torch.no_grad():
        theirs = reference(torch.tensor([PROMPT])).logits[0, -1].topk(96)
    ours = engine.probe(PROMPT, "adapter", top=96)
    values = dict(zip(ours.token_ids, ours.logits, strict=True))
    for token, value in zip(theirs.indices.tolist(), theirs.values.tolist(), strict=True):
        assert values[token] == pytest.approx(value, abs=1e-5)
    assert engine.probe(PROMPT, None, top=96).difference(ours) > 0.01


@pytest.mark.requirement("LI-5.6", "LI-5.4")
def test_without_an_adapter_the_output_is_bit_identical_to_the_untouched_model(
    tiny_llama, tiny_tokenizer, make_card
) -> None:
    ids = torch.tensor([PROMPT, PROMPT])
    with torch.no_grad():
        before = tiny_llama(ids).logits
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=2, max_rank=8)
    engine.load(make_card())
    with torch.no_grad():
        assert torch.equal(tiny_llama(ids).logits, before)
    engine.unload("adapter")
    with torch.no_grad():
        assert torch.equal(tiny_llama(ids).logits, before)


def test_a_slot_that_is_used_again_holds_nothing_of_the_adapter_before(engine, make_card) -> None:
    first, second = make_card("first", 8, 1), make_card("second", 2, 2, only=("q_proj",))
    neighbour = make_card("neighbour", 8, 3)
    engine.load(second, "expected")
    expected = engine.probe(PROMPT, "expected", top=96)
    slot = engine.load(first).slot
    engine.load(neighbour)  # a slot beside it of larger rank: their products share the larger rank
    engine.unload("first")
    assert engine.load(second).slot == slot
    batch = engine.start([Request(PROMPT, "second"), Request(PROMPT, "neighbour")])
    alone = engine.start([Request(PROMPT, "expected")])
    assert batch.step()[0][1:] == pytest.approx(alone.step()[0][1:], abs=1e-5)
    assert engine.probe(PROMPT, "second", top=96).difference(expected) < 1e-5


def test_an_adapter_unloaded_under_a_running_batch_answers_to_the_end_and_then_frees_its_slot(
    engine, make_card
) -> None:
    engine.load(make_card("old", 4, 1))
    free = engine.free_slots
    request = Request(PROMPT, "old", max_tokens=10, stop_ids=())
    expected = run(engine, [request])[0]
    batch = engine.start([request])
    answer = [token for _, token, _ in batch.step()]
    engine.unload("old")
    with pytest.raises(AdapterNotFound, match="'old' is not loaded"):
        engine.start([request])
    engine.load(make_card("new", 4, 2))
    answer += [token for _, token, _ in batch]
    assert answer == expected
    assert engine.free_slots == free
    assert engine.loaded == ("new",)


def test_a_new_version_under_the_same_name_replaces_the_old_even_when_all_slots_are_taken(
    tiny_llama, tiny_tokenizer, make_card
) -> None:
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=1, max_rank=8)
    engine.load(make_card("a", 4, 1))
    before = engine.probe(PROMPT, "a")
    engine.load(make_card("a", 4, 2))
    assert engine.loaded == ("a",)
    assert engine.probe(PROMPT, "a") != before
    with pytest.raises(SlotsFull, match="unload one before 'b'"):
        engine.load(make_card("b", 4, 3))


def test_an_adapter_that_does_not_fit_is_refused_and_leaves_the_engine_as_it_was(engine, make_card) -> None:
    engine.load(make_card("good"))
    before = engine.probe(PROMPT, "good")
    with pytest.raises(InvalidAdapter, match="at most 8, the slots' size"):
        engine.load(make_card("good", rank=9))
    assert engine.loaded == ("good",)
    assert engine.probe(PROMPT, "good") == before


@pytest.mark.requirement("LI-5.3")
def test_an_adapter_is_loaded_from_its_file_and_loading_it_twice_is_once(engine, make_card, tmp_path) -> None:
    digest = LoRAFormat.save(make_card("filed"), tmp_path / "a.arrow")
    report = engine.load(tmp_path / "a.arrow")
    assert (report.name, report.modules, report.digest) == ("filed", 21, digest)
    assert report.bytes == report.parameters * 4
    assert engine.load(tmp_path / "a.arrow") is report
    assert engine.free_slots == 5


def test_a_seed_gives_the_same_tokens_in_any_batch(engine, make_card) -> None:
    engine.load(make_card())
    request = Request([9, 10], "adapter", max_tokens=16, temperature=1.5, top_p=0.9, seed=11, stop_ids=())
    alone = run(engine, [request])[0]
    others = [Request(p, None, max_tokens=16, temperature=1.5, seed=i, stop_ids=()) for i, p in enumerate(PROMPTS)]
    crowded = run(engine, [*others, request])
    assert crowded[-1] == alone
    other_seed = Request([9, 10], "adapter", max_tokens=16, temperature=1.5, top_p=0.9, seed=12, stop_ids=())
    assert run(engine, [other_seed])[0] != alone


def test_top_p_draws_only_from_the_nucleus(engine) -> None:
    probe = engine.probe(PROMPT, top=96)
    probabilities = torch.tensor(probe.logits).softmax(-1)
    inside = int((probabilities.cumsum(-1) - probabilities < 0.5).sum())
    nucleus = set(probe.token_ids[:inside])
    requests = [Request(PROMPT, max_tokens=1, temperature=1.0, top_p=0.5, seed=s, stop_ids=()) for s in range(60)]
    drawn = {tokens[0] for tokens in run(engine, requests)}
    assert drawn <= nucleus
    assert len(drawn) > 1


def test_logprobs_of_a_completion_are_those_that_generation_reported(engine, make_card) -> None:
    engine.load(make_card())
    given = list(engine.start([Request(PROMPT, "adapter", max_tokens=8, stop_ids=())]))
    tokens, reported = [token for _, token, _ in given], [logprob for _, _, logprob in given]
    assert engine.logprobs(PROMPT, tokens, "adapter") == pytest.approx(reported, abs=1e-4)
    assert engine.logprobs(PROMPT, tokens) != pytest.approx(reported, abs=1e-2)
    model_logprobs = engine.model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    assert engine.logprobs(PROMPT, [7])[0] == pytest.approx(float(model_logprobs[7]), abs=1e-5)


@pytest.mark.requirement("LI-5.1", "LI-5.2", "LI-5.3", "LI-5.5", "LI-5.6")
def test_encoding_with_an_adapter_gives_the_merged_models_vectors_and_without_it_the_base_models(
    engine, make_card, tmp_path
) -> None:
    texts = ["w4 w5 w6", "w70"]
    card = make_card("enc", 4, 5)
    LoRAFormat.save(card, tmp_path / "enc.arrow")
    base = engine.encode(texts)
    model = merged(engine.model, card)
    with torch.no_grad():
        alone = [model.model(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in ([4, 5, 6], [70])]
    expected = torch.nn.functional.normalize(torch.stack(alone), dim=1).numpy()
    by_path = engine.encode_with_lora(texts, tmp_path / "enc.arrow")
    np.testing.assert_allclose(by_path, expected, atol=1e-5)
    assert engine.loaded == ()
    engine.load(card)
    np.testing.assert_array_equal(engine.encode_with_lora(texts, "enc"), by_path)
    np.testing.assert_array_equal(engine.encode(texts), base)
    assert np.abs(base - by_path).max() > 0.01
    assert engine.manager.active == ()


@pytest.mark.requirement("LI-5.4")
def test_texts_are_completed_and_decoded(engine) -> None:
    first, second = engine.generate(["w5 w17 w42 w8", "w9"], max_tokens=4)
    assert list(first.token_ids) == greedy(engine.model, PROMPT, 4)
    assert first.text == " ".join(f"w{token}" for token in first.token_ids)
    assert len(second.token_ids) == len(second.logprobs)
    assert second.finish_reason in ("length", "stop")
