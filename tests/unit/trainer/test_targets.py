"""Which layers are trained: the base model's own by default, and what is refused before anything is computed.

Each model is trained a step in this process, in the way of the training subprocess, and registered.
"""

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import BaseModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from fleet_events import v1
from lora_core.base_model import linear_shapes, load, target_shapes
from lora_core.errors import UnsupportedBaseModel
from services.registry.checkpoint import open_artifact
from services.trainer.datasets.records import Kind, Message, Record, schema
from services.trainer.training.configuration import Configuration, check, resolve
from services.trainer.training.protocol import TrainingSpec
from services.trainer.training.targets import chosen, default_targets, why_not
from services.trainer.training.train import CannotTrain, run

pytestmark = pytest.mark.unit

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
MODELS: dict[str, dict[str, Any]] = {
    "phi3": {},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "mamba": {},
    "jamba": {"num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "qwen2_moe": {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16
    },
    "mixtral": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "deepseek_v3": {
        "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 8,
        "qk_nope_head_dim": 8, "num_key_value_heads": 4,
    },
    "gemma2": {"head_dim": 8},
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {},
    "phimoe": {"num_local_experts": 4},
}  # fmt: skip
DEFAULTS = {
    "phi3": "down_proj gate_up_proj o_proj qkv_proj",
    "gpt_neox": "dense dense_4h_to_h dense_h_to_4h query_key_value",
    "opt": "fc1 fc2 k_proj out_proj q_proj v_proj",
    "mamba": "dt_proj in_proj x_proj",  # out_proj is refused by PEFT
    "jamba": "dt_proj in_proj k_proj o_proj out_proj q_proj v_proj x_proj",
    "qwen2_moe": "k_proj o_proj q_proj shared_expert_gate v_proj",  # the rest are names of stacked experts to PEFT
    "mixtral": "k_proj o_proj q_proj v_proj",
    "gpt_oss": "k_proj o_proj q_proj v_proj",
    "deepseek_v3": "kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_b_proj",
    "gemma2": "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj",
    "bloom": "dense dense_4h_to_h dense_h_to_4h query_key_value",
    "falcon": "dense dense_4h_to_h dense_h_to_4h query_key_value",  # linear layers with a forward of their own
    "phimoe": "k_proj o_proj q_proj v_proj",  # its router is a linear layer whose forward gives something else
}


def made(folder: Path, name: str, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**SIZES, **MODELS.get(name, {}), **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={one: at for at, one in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def train(base: Path, work: Path, configuration: Configuration) -> None:
    work.mkdir()
    data = [Record(kind=Kind.COMPLETION, prompt=(Message("user", f"q{i}"),), completions=(f"a{i}",)) for i in range(4)]
    pq.write_table(pa.Table.from_pylist([one.values() for one in data], schema=schema()), work / "data.parquet")
    messages: list[BaseModel] = []
    spec = TrainingSpec(
        job_id="job", dataset=work / "data.parquet", base_model=base, base_model_name="base", work=work,
        configuration=configuration, resume_from=None, threads=1, probe_prompt="hi", supervisor=os.getpid(),
    )  # fmt: skip
    run(spec, messages.append)


def with_tokens_added(base: Path, *, in_template: bool) -> Path:
    """The base with a tokenizer to which 100 tokens were added, the last of which its chat template may write."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    tokenizer.add_tokens([f"<|{number}|>" for number in range(100)], special_tokens=True)
    if in_template:
        tokenizer.chat_template = f"<|99|>{tokenizer.chat_template}"
    tokenizer.save_pretrained(base)
    return base


def configured(**values: Any) -> Configuration:
    return resolve("lora", v1.Hyperparameters(rank=4, max_steps=1, batch_size=2, learning_rate=0.01, **values))


@pytest.mark.requirement("TP-1.1", "TP-1.2")
@pytest.mark.parametrize("name", MODELS)
def test_without_target_modules_a_model_s_own_decoder_is_trained_and_registered(name: str, tmp_path: Path) -> None:
    base = made(tmp_path / name, name)
    layers = linear_shapes(base)
    assert " ".join(default_targets(layers)) == DEFAULTS[name]
    assert check(configured(), layers, quantisation=False) == ()
    train(base, tmp_path / "job", configured())
    contents = open_artifact(tmp_path / "job/artifact.arrow", tmp_path / "job/peft", target_shapes(base))
    assert " ".join(contents.target_modules) == DEFAULTS[name]


def test_of_a_multimodal_model_the_text_decoder_alone_is_trained(tmp_path: Path) -> None:
    base = made(
        tmp_path / "gemma3",
        "gemma3",
        text_config={**SIZES, "head_dim": 8},
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
                       "image_size": 28, "patch_size": 14},
    )  # fmt: skip
    layers = linear_shapes(base)
    assert any("vision_tower" in name for name in layers)
    assert all("language_model" in name for name in chosen(layers, ("q_proj",)))
    train(base, tmp_path / "job", configured(target_modules=("q_proj",), layers=1))
    shapes = target_shapes(base)
    assert open_artifact(tmp_path / "job/artifact.arrow", tmp_path / "job/peft", shapes).target_modules == ("q_proj",)


@pytest.mark.requirement("TP-1.2")
@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("mixtral", "w1", r"w1 is part of the stacked experts \(experts.gate_up_proj\)"),
        ("mixtral", "gate", r"gate is a router \(MixtralTopKRouter\)"),
        ("qwen2_moe", "gate_proj", "gate_proj is part of the stacked experts"),
        ("deepseek_v3", "down_proj", "down_proj is part of the stacked experts"),
        ("gpt_oss", "router", "router is a router"),
        ("gpt_oss", "down_proj", "down_proj is stacked experts"),
        ("mamba", "out_proj", "out_proj is read by mamba's own code"),
        ("mamba", "conv1d", "conv1d is a convolution"),
        ("phi3", "q_proj", "q_proj is fused into qkv_proj"),
        ("phi3", "lm_head", "lm_head is the output head"),
        ("phi3", "embed_tokens", "embed_tokens is the input embedding"),
        ("phi3", "ghost", "ghost is no layer of this base model"),
    ],
)
def test_a_target_that_cannot_be_trained_is_refused_with_what_it_is_and_what_can_be(
    name: str, target: str, reason: str, tmp_path: Path
) -> None:
    layers = linear_shapes(made(tmp_path / name, name))
    (fault,) = check(configured(target_modules=(target,)), layers, quantisation=False)
    assert fault.field == "hyperparameters.target_modules"
    assert fault.value == [target]
    assert fault.expected.startswith(f"linear modules of the base model: {DEFAULTS[name].split()[0]}")
    assert why_not(layers, target) in fault.expected
    assert re.search(reason, fault.expected), fault.expected


def test_base_models_that_cannot_be_trained_at_all_are_refused_by_what_they_are(tmp_path: Path) -> None:
    gpt2 = linear_shapes(made(tmp_path / "gpt2", "gpt2", n_embd=32, n_layer=1, n_head=4))
    (fault,) = check(configured(), gpt2, quantisation=False)
    assert (fault.field, fault.value) == ("hyperparameters.target_modules", [])
    assert "Conv1D" in fault.expected
    packed = made(tmp_path / "packed", "phi3", quantization_config={"quant_method": "gptq", "bits": 4})
    faults = check(configured(), linear_shapes(packed), quantisation=True)
    assert [(one.field, one.value) for one in faults] == [("base_model", "quantization_config gptq")]
    assert "qlora" in faults[0].expected


def test_what_only_the_libraries_refuse_is_one_refusal_with_their_words(tmp_path: Path) -> None:
    base = made(tmp_path / "gpt2", "gpt2", n_embd=32, n_layer=1, n_head=4)
    with pytest.raises(CannotTrain, match="base_model: base cannot be trained like this: ") as refused:
        train(base, tmp_path / "job", configured())
    assert len(str(refused.value)) < 1200


def test_layers_that_have_none_of_the_targets_are_refused(tmp_path: Path) -> None:
    base = made(tmp_path / "jamba", "jamba", attn_layer_offset=0)
    (fault,) = check(configured(target_modules=("q_proj",), layers=1), linear_shapes(base), quantisation=False)
    assert (fault.field, fault.value) == ("hyperparameters.layers", 1)
    assert "q_proj" in fault.expected


def test_a_token_without_a_row_in_the_embedding_is_refused_with_both_sizes(tmp_path: Path) -> None:
    base = with_tokens_added(made(tmp_path / "llama", "llama"), in_template=True)
    sizes = r"tokenizer has 357 tokens, but the model's embedding has 300 rows.*token 356 .'<.99.>'."
    with pytest.raises(CannotTrain, match=f"base_model: .*{sizes}"):
        train(base, tmp_path / "job", configured())
    with pytest.raises(UnsupportedBaseModel, match=sizes):
        load(base)


def test_tokens_without_a_row_that_no_talk_has_are_no_fault(tmp_path: Path) -> None:
    base = with_tokens_added(made(tmp_path / "llama", "llama"), in_template=False)
    train(base, tmp_path / "job", configured())
    load(base)
