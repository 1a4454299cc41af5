"""A small Llama that is made here, and adapters for it: no test but the marked ones needs the real base model."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lora_core import LoRACard, LoRAWeights
from lora_core.array import narrow

Shapes = dict[str, tuple[int, int]]
MakeCard = Callable[..., LoRACard]


_SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": True,
}


@pytest.fixture
def tiny_llama() -> LlamaForCausalLM:
    """A Llama of three layers with random float32 weights, the same each time, in evaluation mode."""
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**_SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)  # wide enough that greedy choices are clear
    return model.requires_grad_(False)


@pytest.fixture
def tiny_qwen() -> Qwen2ForCausalLM:
    """A Qwen2 of two layers: its q, k and v have biases, and its output head a weight of its own."""
    torch.manual_seed(11)
    own = {"num_hidden_layers": 2, "tie_word_embeddings": False}
    model = Qwen2ForCausalLM(Qwen2Config(**{**_SIZES, **own})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.15)
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<unk>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, 96)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def tiny_shapes() -> Shapes:
    """Linear layers of `tiny_llama`: module → (out, in)."""
    own = {
        "self_attn.q_proj": (32, 32),
        "self_attn.k_proj": (16, 32),
        "self_attn.v_proj": (16, 32),
        "self_attn.o_proj": (32, 32),
        "mlp.gate_proj": (80, 32),
        "mlp.up_proj": (80, 32),
        "mlp.down_proj": (32, 80),
    }
    return {f"model.layers.{layer}.{name}": shape for layer in range(3) for name, shape in own.items()}


@pytest.fixture(scope="session")
def make_card(tiny_shapes: Shapes) -> MakeCard:
    """make_card(name, rank, seed, dtype=…, only=suffixes, **fields of LoRACard)."""

    def make(
        name: str = "adapter",
        rank: int = 4,
        seed: int = 0,
        dtype: str = "float32",
        only: tuple[str, ...] = ("_proj",),
        ranks: dict[str, int] | None = None,
        **fields: object,
    ) -> LoRACard:
        random = np.random.default_rng(seed)
        weights = {}
        for module, (out_features, in_features) in tiny_shapes.items():
            if module.endswith(only):
                own = (ranks or {}).get(module, rank)
                a = random.standard_normal((own, in_features), dtype=np.float32) * 0.3
                b = random.standard_normal((out_features, own), dtype=np.float32) * 0.3
                weights[module] = LoRAWeights(narrow(a, dtype), narrow(b, dtype))
        fields = {"alpha": 6.0, "metadata": {"author": "someone", "größe": "5 µm"}} | fields
        targets = tuple(sorted({module.rpartition(".")[2] for module in weights}))
        return LoRACard(name=name, rank=rank, target_modules=targets, weights=weights, **fields)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Descriptions of base models are those of this run, not what an earlier release left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
