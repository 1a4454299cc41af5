"""Many adapters in one batch, each row with its own mix: proved row by row against the layers and against PEFT."""

import copy
import types

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from peft import PeftModel

from lora_core import ArrowEngine, LoRACard, LoRAManager, LoRAWeights, UnsupportedAdapter
from lora_core.interop import to_peft

IDS = torch.tensor([[5, 17, 42, 8, 60]])


@pytest.fixture
def engine(tiny_llama, tiny_tokenizer) -> ArrowEngine:
    return ArrowEngine(tiny_llama, tiny_tokenizer, slots=8, max_rank=16)


def with_vectors(card: LoRACard, **names: float) -> LoRACard:
    """The card with DoRA magnitudes or biases of random numbers around these."""
    random = np.random.default_rng(len(card.name))

    def vectors(w: LoRAWeights) -> dict[str, np.ndarray]:
        size = w.out_features
        return {n: (level * random.uniform(0.5, 1.5, size)).astype(np.float32) for n, level in names.items()}

    weights = {m: LoRAWeights(w.a, w.b, w.alpha, **vectors(w)) for m, w in card.weights.items()}
    return LoRACard(card.name, card.rank, card.alpha, card.target_modules, weights, card.metadata, card.rslora)


def alone(model, card: LoRACard | None, ids=IDS) -> torch.Tensor:
    """Logits of the model with this adapter in its layers."""
    model = copy.deepcopy(model)
    if card is not None:
        LoRAManager(model).apply(card)
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.requirement("LI-3.4", "LI-8.1", "LI-9.5")
def test_rows_of_different_rank_dora_biases_and_none_share_a_batch_and_each_answers_as_if_alone(
    engine, tiny_llama, make_card
) -> None:
    cards = [
        make_card("four", 4, 1),
        make_card("sixteen", 16, 2, rslora=True),
        with_vectors(make_card("dora", 4, 3), magnitude=0.8),
        with_vectors(make_card("biased", 8, 4), lora_bias=0.3, base_bias=0.2),
        make_card("some modules", 4, 5, only=("v_proj", "down_proj")),
        make_card("ranks", 4, 6, ranks={"model.layers.1.mlp.up_proj": 11}),
    ]
    for card in cards:
        engine.load(card)
    by_name = {card.name: card for card in cards}
    for names in (
        [None, *by_name],
        ["dora", "four", "dora", None, "four", "biased"],
        ["some modules"] * 3,
        ["ranks", "ranks", "sixteen", "sixteen"],
    ):
        with engine.rows(names):
            together = tiny_llama(IDS.expand(len(names), -1)).logits
        for row, name in enumerate(names):
            torch.testing.assert_close(together[row], alone(tiny_llama, by_name.get(name))[0], atol=2e-5, rtol=0)


@pytest.mark.requirement("LI-8.1", "LI-8.2", "LI-8.3", "LI-8.5", "LI-8.6")
def test_a_weighted_set_on_one_row_equals_pefts_weighted_adapter_beside_rows_of_single_ones(
    engine, tiny_llama, make_card, tmp_path
) -> None:
    cards = [make_card(name, rank, seed) for seed, (name, rank) in enumerate([("one", 4), ("two", 8), ("three", 4)])]
    weights = [0.7, 0.2, 0.5]  # PEFT takes no negative ones
    peft = None
    for card in cards:
        engine.load(card)
        to_peft(card, tmp_path / card.name)
        if peft is None:
            peft = PeftModel.from_pretrained(copy.deepcopy(tiny_llama), tmp_path / card.name, adapter_name=card.name)
        else:
            peft.load_adapter(tmp_path / card.name, card.name)
    peft.add_weighted_adapter([card.name for card in cards], weights, "mix", combination_type="cat")
    peft.set_adapter("mix")
    with torch.no_grad():
        expected = peft.eval()(IDS).logits
    mix = {card.name: weight for card, weight in zip(cards, weights, strict=True)}
    with engine.rows(["two", mix, None]):
        rows = tiny_llama(IDS.expand(3, -1)).logits
    torch.testing.assert_close(rows[1], expected[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(rows[0], alone(tiny_llama, cards[1])[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(rows[2], alone(tiny_llama, None)[0], atol=2e-5, rtol=0)


@pytest.mark.requirement("LI-8.2")
def test_dora_in_a_set_scales_the_base_layers_output_and_not_its_neighbours(engine, tiny_llama, make_card) -> None:
    dora, plain = with_vectors(make_card("dora", 4, 3), magnitude=0.8), make_card("plain", 4, 1)
    for card in (dora, plain):
        engine.load(card)
    model = copy.deepcopy(tiny_llama)
    manager = LoRAManager(model)
    manager.apply(plain)
    manager.apply(dora)  # layers add up in the same way
    with torch.no_grad():
        expected = model(IDS).logits
    for mix in ({"dora": 1.0, "plain": 1.0}, {"plain": 1.0, "dora": 1.0}):
        with engine.rows([mix]):
            torch.testing.assert_close(tiny_llama(IDS).logits, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("bad", [{}, {f"a{i}": 1.0 for i in range(4)}, {"a0": float("nan")}])
def test_an_impossible_set_is_refused(engine, make_card, bad) -> None:
    for number in range(4):
        engine.load(make_card(f"a{number}", 4, number))
    with pytest.raises(ValueError, match="expected"), engine.rows([bad]):
        pass


@pytest.mark.requirement("LI-5.6", "LI-3.7")
def test_a_merged_adapter_serves_uniform_batches_and_the_base_weights_stay_the_very_same(
    engine, tiny_llama, make_card
) -> None:
    before = {name: (p.data_ptr(), p.clone()) for name, p in tiny_llama.named_parameters()}
    plain = alone(tiny_llama, None)
    card, other = with_vectors(make_card("main", 8, 1), magnitude=0.9), make_card("other", 4, 2)
    engine.load(card)
    engine.load(other)
    assert engine.merge("main") == sum(p.nbytes for n, p in tiny_llama.named_parameters() if "_proj" in n)
    expected, mixed = alone(tiny_llama, card)[0], alone(tiny_llama, other)[0]
    with engine.rows(["main", "main"]):
        assert tiny_llama.model.layers[0].self_attn.q_proj.weight.data_ptr() not in {p for p, _ in before.values()}
        torch.testing.assert_close(tiny_llama(IDS.expand(2, -1)).logits[1], expected, atol=2e-5, rtol=0)
    with engine.rows(["main", "other"]):
        rows = tiny_llama(IDS.expand(2, -1)).logits
    torch.testing.assert_close(rows[0], expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(rows[1], mixed, atol=2e-5, rtol=0)
    with engine.rows(["main"]), engine.rows([None]):
        assert torch.equal(tiny_llama(IDS).logits, plain), "the base model within a merged pass is the base model"
    engine.unmerge()
    for name, parameter in tiny_llama.named_parameters():
        assert parameter.data_ptr() == before[name][0]
        assert torch.equal(parameter, before[name][1])
    with torch.no_grad():
        assert torch.equal(tiny_llama(IDS).logits, plain)


def test_unloading_a_merged_adapter_ends_the_merge(engine, tiny_llama, make_card) -> None:
    engine.load(make_card("main", 4, 1))
    engine.merge("main")
    engine.unload("main")
    card = make_card("next", 4, 2)
    assert engine.load(card).slot == 0
    with engine.rows(["next"]):
        logits = tiny_llama(IDS).logits
    torch.testing.assert_close(logits, alone(tiny_llama, card), atol=2e-5, rtol=0)


def test_rows_within_rows_take_turns_and_do_not_add_up(engine, tiny_llama, make_card) -> None:
    one, two = make_card("one", 4, 1), make_card("two", 4, 2)
    engine.load(one)
    engine.load(two)
    with engine.rows(["one"]):
        with engine.rows(["two"]):
            inner = tiny_llama(IDS).logits
        outer = tiny_llama(IDS).logits
    torch.testing.assert_close(inner, alone(tiny_llama, two), atol=2e-5, rtol=0)
    torch.testing.assert_close(outer, alone(tiny_llama, one), atol=2e-5, rtol=0)


@pytest.mark.requirement("LI-5.6")
def test_outside_of_rows_nothing_of_ours_is_on_the_model_and_anothers_forward_is_put_back(
    engine, tiny_llama, make_card
) -> None:
    engine.load(make_card("one", 4, 1))
    layer = tiny_llama.model.layers[1].mlp.up_proj
    calls: list[int] = []

    def theirs(self, x):
        calls.append(1)
        return type(self).forward(self, x)

    vars(layer)["forward"] = own = types.MethodType(theirs, layer)
    with engine.rows(["one"]):
        logits = tiny_llama(IDS).logits
    assert calls
    torch.testing.assert_close(logits, alone(tiny_llama, make_card("one", 4, 1)), atol=2e-5, rtol=0)
    assert vars(layer)["forward"] is own
    del vars(layer)["forward"]
    assert not any("forward" in vars(module) for module in tiny_llama.modules())


def test_a_batch_of_another_size_than_the_plan_is_an_error_and_not_another_rows_adapter(engine, tiny_llama, make_card):
    for number in range(2):
        engine.load(make_card(f"a{number}", 4, number))
    with pytest.raises(RuntimeError, match="a batch of 4 rows under a plan for 2"), engine.rows(["a0", "a1"]):
        tiny_llama(IDS.expand(4, -1))


@pytest.mark.requirement("LI-3.6", "LI-7.7")
def test_the_bind_report_says_what_was_bound_and_what_it_does_to_a_probe_prompt(engine, make_card) -> None:
    card = make_card("one", 4, 1)
    engine.load(card)
    report = engine.bind_report("one", IDS[0].tolist())
    assert (report.modules, report.parameters, report.bytes) == (21, card.parameters, 4 * card.parameters)
    assert report.effect.logit > 0.1
    assert report.effect.divergence > 0
    weights = {m: LoRAWeights(w.a, np.zeros_like(w.b)) for m, w in card.weights.items()}
    engine.load(LoRACard("nothing", 4, 4.0, ("q_proj",), weights))
    nothing = engine.bind_report("nothing", IDS[0].tolist()).effect
    # Two rows of one batch are not promised the same rounding: 1e-6 was seen, a fault of ours would be far larger.
    assert (nothing.logit, nothing.divergence) == pytest.approx((0.0, 0.0), abs=1e-4)


@pytest.mark.requirement("LI-2.1", "LI-2.2")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_sit_on_quantised_base_layers_in_slots_and_in_layers_alike(
    tiny_llama, tiny_tokenizer, make_card, bits, dora
) -> None:
    for name, linear in list(tiny_llama.named_modules()):
        if isinstance(linear, torch.nn.Linear) and "_proj" in name:
            size = (linear.in_features, linear.out_features)
            if bits == 4:
                packed = bnb.nn.Linear4bit(*size, bias=False, compute_dtype=torch.float32, quant_type="nf4")
                packed.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
            else:
                packed = bnb.nn.Linear8bitLt(*size, bias=False, has_fp16_weights=False)
                packed.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
            tiny_llama.set_submodule(name, packed.to("cpu"))
    with torch.no_grad():
        plain = tiny_llama(IDS).logits
    card = make_card("one", 4, 1)
    card = with_vectors(card, magnitude=0.8) if dora else card
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=2, max_rank=8)
    engine.load(card)
    with engine.rows(["one"]):
        in_slots = tiny_llama(IDS).logits
    manager = LoRAManager(tiny_llama)
    manager.apply(card)
    with torch.no_grad():
        in_layers = tiny_llama(IDS).logits
    manager.remove("one")
    assert (in_slots - plain).abs().max() > 0.1
    torch.testing.assert_close(in_slots, in_layers, atol=1e-4, rtol=0)
    with pytest.raises(UnsupportedAdapter, match="quantised base layer"):
        engine.merge("one")
    with torch.no_grad():
        assert torch.equal(tiny_llama(IDS).logits, plain)
