"""Small random models of many architectures."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

COMMON = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 6},
    "gemma2": {"head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "granite": {"logits_scaling": 0.5, "attention_multiplier": 0.5},
    "cohere": {"logit_scale": 2.0},
    "gpt_neox": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 6},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 6},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "mamba": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "stablelm": {},
    "falcon": {},
}


def made(name: str, **changes: Any) -> Any:
    """A model of this architecture, in evaluation mode; `changes` are of its configuration."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**COMMON, **ARCHITECTURES[name], **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(4)  # as it is drawn, a model hardly looks at what it attends to
    return model
