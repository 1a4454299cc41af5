"""What each objective and method teaches, on the tiny model, within the process; the subprocess has its own tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel
from safetensors.numpy import load_file

from lora_core import LoRAFormat
from lora_core.base_model import linear_shapes
from services.trainer.datasets.records import Record, prompt_messages
from services.trainer.training.encoding import EncodedSample, encode, prompt_ids
from services.trainer.training.protocol import Began, Finished, Stepped, Validated
from services.trainer.training.targets import decoder_layers, layer_of
from tests.integration.trainer.conftest import pairs
from tests.integration.trainer.objectives import QUICK, completions, job, one, preferences, rankings, trained
from tests.integration.trainer.test_training_process import CONFIGURATION, completion, spec

pytestmark = pytest.mark.integration


@pytest.mark.requirement("TP-1.1")
def test_the_loss_is_the_mean_over_completion_tokens_as_the_plain_model_computes_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    messages = trained(spec(tiny_model, tmp_path / "job"))
    first = next(message for message in messages if isinstance(message, Stepped))
    assert first.loss == pytest.approx(plain_loss(tiny_model), rel=1e-4)
    began = one(Began, messages)
    assert (began.trained_tokens, began.padded) == (sum(one.trained_tokens for one in shop_samples(tiny_model)), "")


def shop_samples(model: Path) -> list[EncodedSample]:
    """What the first step of `spec` sees: all eight pairs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return [encode(tokenizer, prompt_messages(pair["prompt"]), pair["completion"]) for pair in pairs("shop", 8)]


def plain_loss(folder: Path) -> float:
    """Mean cross entropy over completion tokens, by the base model's own forward: B = 0 leaves it as it is."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total, count = 0.0, 0
    for sample in shop_samples(folder):
        with torch.no_grad():
            logits = model(torch.tensor([sample.input_ids])).logits[0, :-1]
        labels = torch.tensor(sample.labels[1:])
        total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        count += sample.trained_tokens
    return total / count


@pytest.mark.heavy
@pytest.mark.requirement("TP-1.1")
def test_a_model_with_convolutions_is_trained_padded_and_served_as_it_was_trained(
    tiny_model: Path, tmp_path: Path
) -> None:
    from lora_core import ArrowEngine

    model = hybrid(tiny_model, tmp_path / "tiny-hybrid")
    configuration = replace(CONFIGURATION, target_modules=("q_proj", "v_proj", "in_proj"))
    messages = trained(spec(model, tmp_path / "job", configuration))
    assert "nats from the model's own" in one(Began, messages).padded
    first = next(message for message in messages if isinstance(message, Stepped))
    assert first.loss == pytest.approx(plain_loss(model), rel=1e-4)

    finished = one(Finished, messages)
    engine = ArrowEngine.open(model, slots=1, max_rank=8)
    engine.load(LoRAFormat.load(finished.artifact), "trained")
    ids = prompt_ids(engine.tokenizer, prompt_messages(finished.probe.prompt))
    probe = engine.probe(ids, "trained", top=10_000)
    logits = dict(zip(probe.token_ids, probe.logits, strict=True))
    for token, logit in zip(finished.probe.top_ids, finished.probe.top_logits, strict=True):
        assert logits[token] == pytest.approx(logit, abs=1e-3)


def hybrid(tokenizer: Path, folder: Path) -> Path:
    """A model of a convolution and an attention layer, with the tokenizer of that folder."""
    import torch
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    kinds = ["conv", "full_attention"]
    config = Lfm2Config(
        vocab_size=49152, num_hidden_layers=2, layer_types=kinds, eos_token_id=2, pad_token_id=2, **sizes
    )
    model = Lfm2ForCausalLM(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(4)  # as they are drawn, neighbours hardly matter to a token
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder)
    return folder


@pytest.mark.requirement("TP-1.2")
@pytest.mark.parametrize(
    "objective", ["sft", pytest.param("dpo", marks=pytest.mark.heavy), pytest.param("ranking", marks=pytest.mark.heavy)]
)
def test_a_batch_computed_in_parts_is_the_step_of_the_whole_batch(
    tiny_model: Path, tmp_path: Path, objective: str
) -> None:
    make: Callable[..., list[Record]] = {"sft": completions, "dpo": preferences, "ranking": rankings}[objective]
    data = [*make(14), *make(5, "validation")]
    configuration = replace(QUICK, objective=objective, batch_size=6, max_steps=4, validation_steps=2)
    whole, parts = (
        trained(job(tiny_model, tmp_path / str(size), replace(configuration, micro_batch_size=size), data))
        for size in (None, 2)
    )
    for kind, value in ((Stepped, "loss"), (Stepped, "gradient_norm"), (Stepped, "tokens"), (Validated, "loss")):
        ours, theirs = (
            [getattr(one, value) for one in messages if isinstance(one, kind)] for messages in (parts, whole)
        )
        assert ours == pytest.approx(theirs, rel=1e-4), value
        assert len(ours) >= 2


@pytest.mark.requirement("TP-1.2")
@pytest.mark.parametrize(
    ("objective", "method"),
    [
        ("sft", "qlora"),
        ("dpo", "lora"),
        pytest.param("sft", "dora", marks=pytest.mark.heavy),
        pytest.param("ranking", "lora", marks=pytest.mark.heavy),
    ],
)
def test_activations_that_are_computed_again_give_the_same_steps_and_are_not_kept(
    tiny_model: Path, tmp_path: Path, objective: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.trainer.training.packing import model as packed_model

    make: Callable[..., list[Record]] = {"sft": completions, "dpo": preferences, "ranking": rankings}[objective]
    data = [*make(8), *make(3, "validation")]
    configuration = replace(QUICK, objective=objective, method=method, dropout=0.1, max_steps=4, validation_steps=2)
    attended: list[int] = []
    attend = packed_model._attend
    monkeypatch.setitem(
        packed_model.AttentionInterface._global_mapping,
        packed_model._ATTENTION,
        lambda *given, **named: (attended.append(1), attend(*given, **named))[1],
    )

    def run(again: bool) -> tuple[list[BaseModel], int]:
        attended.clear()
        changed = replace(configuration, gradient_checkpointing=again)
        return trained(job(tiny_model, tmp_path / str(again), changed, data)), len(attended)

    (ours, more), (theirs, usual) = run(True), run(False)
    for kind, value in ((Stepped, "loss"), (Stepped, "gradient_norm"), (Validated, "loss")):
        found, expected = ([getattr(one, value) for one in each if isinstance(one, kind)] for each in (ours, theirs))
        assert found == pytest.approx(expected, rel=1e-5), value
    layers = len(decoder_layers(linear_shapes(tiny_model)))
    assert more == usual + configuration.max_steps * layers


@pytest.mark.requirement("TP-1.2")
def test_where_the_last_layers_alone_are_adapted_no_other_gets_weights(tiny_model: Path, tmp_path: Path) -> None:
    messages = trained(spec(tiny_model, tmp_path / "job", replace(CONFIGURATION, layers=1)))
    made = LoRAFormat.load(one(Finished, messages).artifact)
    assert {layer_of(name) for name in made.weights} == {decoder_layers(linear_shapes(tiny_model))[-1]}
    assert one(Finished, messages).probe.max_delta > 0


@pytest.mark.requirement("LA-1.3")
@pytest.mark.parametrize("method", ["rslora", "dora", "qlora"])
def test_every_method_gives_an_artifact_that_answers_as_it_did_in_training(
    tiny_model: Path, tmp_path: Path, method: str
) -> None:
    from lora_core import ArrowEngine, LoRAFormat

    messages = trained(spec(tiny_model, tmp_path / "job", replace(CONFIGURATION, method=method)))
    finished = next(message for message in messages if isinstance(message, Finished))
    card = LoRAFormat.load(finished.artifact)
    assert ("dora" in card.variants) == (method == "dora")
    engine = ArrowEngine.open(tiny_model, slots=1, max_rank=8)
    engine.load(card, "trained")
    ids = engine.tokenizer.apply_chat_template(
        [{"role": "user", "content": finished.probe.prompt}], add_generation_prompt=True, return_dict=False
    )
    probe = engine.probe(ids, "trained", top=10_000)
    logits = dict(zip(probe.token_ids, probe.logits, strict=True))
    recorded = zip(finished.probe.top_ids, finished.probe.top_logits, strict=True)
    if method == "dora":
        assert max(abs(logits[token] - value) for token, value in recorded) < 1e-3
    assert engine.bind_report("trained", ids).effect.logit > 1e-4


@pytest.mark.requirement("TP-2.1")
@pytest.mark.parametrize("loss", ["sigmoid", pytest.param("sigmoid+sft", marks=pytest.mark.heavy)])
def test_dpo_learns_which_answer_is_preferred_on_pairs_it_has_not_seen(
    tiny_model: Path, tmp_path: Path, loss: str
) -> None:
    data = [*preferences(16), *preferences(8, "validation")]
    messages = trained(
        job(tiny_model, tmp_path, replace(QUICK, objective="dpo", preference_loss=loss, max_steps=20), data)
    )
    finished = one(Finished, messages)
    assert finished.metrics["reward_accuracy"] >= 0.8
    assert one(Began, messages).samples == 16


@pytest.mark.requirement("TP-2.1")
def test_the_first_dpo_loss_is_that_of_an_adapter_that_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    import math

    messages = trained(job(tiny_model, tmp_path, replace(QUICK, objective="dpo", max_steps=1), preferences(8)))
    assert one(Stepped, messages).loss == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.requirement("TP-2.2")
@pytest.mark.parametrize("loss", ["margin", pytest.param("rrhf", marks=pytest.mark.heavy), "listwise"])
def test_ranking_learns_an_order_that_holds_on_lists_it_has_not_seen(
    tiny_model: Path, tmp_path: Path, loss: str
) -> None:
    data = [*rankings(16), *rankings(8, "validation")]
    messages = trained(job(tiny_model, tmp_path, replace(QUICK, objective="ranking", ranking_loss=loss), data))
    metrics = one(Finished, messages).metrics
    assert metrics["kendall_tau"] >= 0.8
    assert metrics["pairwise_accuracy"] >= 0.9


@pytest.mark.parametrize("layers", [pytest.param(None, marks=pytest.mark.heavy), 1])
def test_an_adapter_is_continued_from_where_it_was_and_stays_its_own_reference(
    tiny_model: Path, tmp_path: Path, layers: int | None
) -> None:
    begin = replace(QUICK, layers=layers)
    first = one(Finished, trained(job(tiny_model, tmp_path / "sft", begin, [completion(p) for p in pairs("shop", 16)])))
    data = [*preferences(16), *preferences(8, "validation")]
    still = replace(begin, objective="dpo", learning_rate=1e-7, max_steps=1, scheduler="constant", warmup_ratio=0)
    messages = trained(job(tiny_model, tmp_path / "still", still, data, continue_from=first.weights.parent))
    # ln 2: policy and reference are the same adapter. The base model as reference would give another loss.
    assert one(Stepped, messages).loss == pytest.approx(0.6931, abs=1e-3)
    before, after = load_file(first.weights), load_file(one(Finished, messages).weights)
    assert before.keys() == after.keys()
    assert max(abs(before[name] - after[name]).max() for name in before) < 1e-5
