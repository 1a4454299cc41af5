"""Tokens are drawn as transformers' own processors and warpers would have them drawn, and as OpenAI's penalties say."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lora_core.engine import ArrowEngine, Request
from lora_core.generation_settings import GenerationSettings
from lora_core.sampling import Sampler

pytestmark = pytest.mark.unit

VOCABULARY = 50


@pytest.fixture
def engine(tiny_llama: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerBase) -> ArrowEngine:
    return ArrowEngine(tiny_llama, tiny_tokenizer, slots=2, max_rank=8)


def logits_of(seed: int) -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("penalty", [0.7, 1.05, 1.8])
def test_the_repetition_penalty_is_transformers_over_prompt_and_answer(seed: int, penalty: float) -> None:
    prompt = [3, 9, 9, 27]
    sampler = Sampler(Request(prompt, repetition_penalty=penalty))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)
    ids = list(prompt)
    for step in range(10):
        logits = logits_of(100 * seed + step // 3)
        token, logprob = sampler.pick(logits)
        assert token == int(theirs(torch.tensor([ids]), logits.unsqueeze(0)).argmax())
        assert logprob == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-5)
        ids.append(token)


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(0, 1.0, 0.0), (5, 1.0, 0.0), (0, 0.6, 0.0), (0, 1.0, 0.2), (12, 0.8, 0.05), (1, 1, 1)],
)
def test_the_tokens_that_can_be_drawn_are_those_that_transformers_leaves(
    top_k: int, top_p: float, min_p: float
) -> None:
    logits = logits_of(1)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(1.5)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    wanted = warpers(torch.tensor([[0]]), logits.unsqueeze(0).clone())[0].softmax(-1)
    draws = 4000
    sampler = Sampler(Request([0], temperature=1.5, top_k=top_k, top_p=top_p, min_p=min_p, seed=4))
    found = Counter(sampler.pick(logits)[0] for _ in range(draws))
    assert {token for token in found if not wanted[token]} == set()
    for token in range(VOCABULARY):
        expected = float(wanted[token])
        # Five standard deviations of a share of that many draws, and one draw: what is possible may come once.
        assert found[token] / draws == pytest.approx(
            expected, abs=5 * (expected * (1 - expected) / draws) ** 0.5 + 1 / draws
        )


def test_presence_is_taken_once_and_frequency_for_each_time_and_the_prompt_counts_for_neither() -> None:
    logits = torch.tensor([1.0, 0.9, 0.5, -5.0])
    present = Sampler(Request([0, 1, 2], presence_penalty=0.3))
    assert [present.pick(logits)[0] for _ in range(4)] == [0, 1, 0, 0]
    frequent = Sampler(Request([0, 1, 2], frequency_penalty=0.3))
    assert [frequent.pick(logits)[0] for _ in range(6)] == [0, 1, 0, 1, 2, 0]
    liked = Sampler(Request([0, 1, 2], presence_penalty=-2.0))
    assert [liked.pick(logits + torch.tensor([0, 0, 0, 7.0 * step]))[0] for step in (0, 0, 1)] == [0, 0, 0]


def test_a_bias_is_added_before_anything_else() -> None:
    logits = torch.tensor([1.0, 0.9, 0.5, -5.0])
    assert Sampler(Request([0], logit_bias={0: -100, 3: 6.5})).pick(logits)[0] == 3
    drawn = Sampler(Request([0], temperature=1.0, seed=1, logit_bias={2: 100}))
    assert {drawn.pick(logits)[0] for _ in range(20)} == {2}


def test_a_row_without_penalties_pays_nothing_for_them() -> None:
    assert Sampler(Request([1]), GenerationSettings(repetition_penalty=1.0))._penalties is None
    assert Sampler(Request([1], repetition_penalty=1.0), GenerationSettings(repetition_penalty=1.3))._penalties is None
    assert Sampler(Request([1]), GenerationSettings(repetition_penalty=1.3))._penalties is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", -1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("alternatives", -1),
        ("repetition_penalty", float("inf")),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        Request([1], **{field: value})


def test_alternatives_are_the_likeliest_of_each_step_and_of_each_place_of_a_prompt(engine: ArrowEngine) -> None:
    requests = [
        Request([5, 6, 7], max_tokens=4, stop_ids=(), alternatives=3, repetition_penalty=1.5),
        Request([8, 9], max_tokens=4, stop_ids=()),
    ]
    batch = engine.start(requests)
    ids: list[int] = []
    while batch.alive:
        for row, token, logprob in batch.step():
            likely = batch.alternatives(row)
            if row == 1:
                assert likely == ()
                continue
            values = torch.from_numpy(engine.next_logits([5, 6, 7, *ids])).log_softmax(-1)
            best = values.topk(3)
            assert [one for one, _ in likely] == best.indices.tolist()
            assert [one for _, one in likely] == pytest.approx(best.values.tolist(), abs=1e-3)
            assert logprob == pytest.approx(float(values[token]), abs=1e-3)
            ids.append(token)
    [(logprob, likely), *_] = engine.scores([5], [6, 7], alternatives=2)
    values = torch.from_numpy(engine.next_logits([5])).log_softmax(-1)
    assert logprob == pytest.approx(float(values[6]), abs=1e-4)
    assert [one for one, _ in likely] == values.topk(2).indices.tolist()


@pytest.mark.parametrize("penalty", [None, 1.3])
def test_an_engine_draws_with_the_models_own_penalty_as_generate_does(
    tiny_llama: PreTrainedModel,
    tiny_tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    penalty: float | None,
) -> None:
    monkeypatch.setattr(tiny_llama.generation_config, "repetition_penalty", penalty)
    prompt = [5, 6, 5, 7]
    options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    wanted = tiny_llama.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=1, max_rank=4)
    found = [token for _, token, _ in engine.start([Request(prompt, max_tokens=16, stop_ids=())])]
    assert found == wanted
    plain = engine.start([Request(prompt, max_tokens=16, stop_ids=(), repetition_penalty=1.0)])
    assert ([token for _, token, _ in plain] == wanted) is (penalty is None)
