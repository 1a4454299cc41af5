"""Small configurations of every language model that transformers has, from its own defaults and a table of sizes."""

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
"""Of a Llama-like model, for `AutoConfig.for_model`."""
_SIZES: dict[int, str] = {
    1: "n_group topk_group n_shared_experts first_k_dense_replace num_expert_group",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers"
    " num_encoder_layers num_blocks depth num_key_value_heads num_kv_heads swa_num_key_value_heads num_query_groups"
    " num_experts_per_tok num_experts_per_token moe_topk moe_top_k top_k_experts moe_k linear_num_key_heads",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads index_n_heads"
    " swa_num_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts linear_num_value_heads"
    " linear_num_heads",
    8: "qk_rope_head_dim rotary_dim laurel_rank adapter_rank hidden_size_per_layer_input index_topk time_step_rank"
    " mamba_dt_rank mamba_n_heads mamba_num_heads sliding_window sliding_window_size attention_window_size window_size",
    16: "head_dim attention_head_dim v_head_dim qk_nope_head_dim swa_head_dim swa_v_head_dim dim_head d_head"
    " global_head_dim kv_channels attention_head_size index_head_dim kv_lora_rank q_lora_rank o_lora_rank"
    " linear_head_dim mamba_d_state state_size ssm_state_size mamba_d_head mamba_head_dim mamba_headdim"
    " linear_key_head_dim linear_value_head_dim chunk_size mamba_chunk_size",
    32: "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size"
    " moe_shared_expert_intermediate_size moe_latent_size",
    64: "hidden_size d_model n_embd emb_dim dim n_embed word_embed_proj_dim embedding_size input_embedding_size"
    " output_embedding_size embedding_dim attention_hidden_size lru_width backbone_hidden_size embed_dim out_hidden_size"
    " max_position_embeddings n_positions n_ctx max_seq_len context_length model_max_length max_target_positions"
    " max_source_positions num_position_embeddings",
    96: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim d_ff n_inner ffn_hidden_size dim_ff dff d_inner"
    " feed_forward_size dense_intermediate_size",
    128: "vocab_size vocab_size_per_layer_input decoder_vocab_size n_tokens unpadded_vocab_size",
}
_SIZE_OF = {name: size for size, names in _SIZES.items() for name in names.split()}

_HALF_HYBRID = {"attention_hidden_size": 128, "attention_head_dim": 32, "num_key_value_heads": 4}
# What the table of sizes alone makes no consistent model of.
_OWN: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "deepseek_v2": {
        "num_experts_per_tok": 2,
        "n_routed_experts": 4,
        "moe_intermediate_size": 32,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
    },
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "intermediate_size": [96, 96],
        "activation_sparsity_pattern": [0.5, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3, "num_dense_layers": 1},
    "mamba2": {"head_dim": 16, "num_heads": 8},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "qwen2_5_vl": {"text_config": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}},
    "qwen2_vl": {
        "text_config": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        "vision_config": {"hidden_size": 64, "embed_dim": 64},
    },
    "qwen3_vl": {
        "text_config": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        "vision_config": {"deepstack_visual_indexes": [0, 1]},
    },
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [32, 32], "axial_pos_shape": [8, 8]},
    "roc_bert": {
        "pronunciation_vocab_size": 32,
        "shape_vocab_size": 32,
        "pronunciation_embed_dim": 16,
        "shape_embed_dim": 16,
    },
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zamba": {
        **_HALF_HYBRID,
        "num_hidden_layers": 5,
        "layers_block_type": ["linear_attention", "linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "zamba2": {
        **_HALF_HYBRID,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "n_mamba_heads": 8,
        "num_query_groups": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}

IMAGE_TEXT = (
    "aya_vision", "idefics3", "internvl", "llava", "llava_next", "mistral3", "paligemma", "qwen2_5_vl", "qwen2_vl",
    "qwen3_vl", "smolvlm",
)  # fmt: skip
"""Models of images and text that are no causal language models to transformers; those that are stand in `CAUSAL`."""


def _causal() -> dict[str, str]:
    named: dict[str, str] = {}
    for model_type, architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if architecture not in named or (
            _is_own(model_type, architecture) > _is_own(named[architecture], architecture)
        ):
            named[architecture] = model_type
    return {model_type: architecture for architecture, model_type in named.items()}


def _is_own(model_type: str, architecture: str) -> bool:
    """`llama`, not `internlm3`, of LlamaForCausalLM."""
    return architecture.lower().startswith(model_type.replace("_", "").replace("-", ""))


CAUSAL = _causal()
"""model_type → class, each class of transformers' causal language models once."""


def tiny_config(model_type: str) -> PreTrainedConfig:
    """Some 100,000 weights, each kind of layer that the architecture's own default has. Raises as its class does."""
    made: type[PreTrainedConfig] = CONFIG_MAPPING[model_type]
    defaults = made().to_dict()
    values = _small(defaults)
    if kinds := list(dict.fromkeys(defaults.get("layer_types") or ())):
        kinds = kinds * 2 if len(kinds) == 1 else kinds
        values |= {"layer_types": kinds, "num_hidden_layers": len(kinds)}
    for name, own in _OWN.get(model_type, {}).items():
        values[name] = {**values.get(name, {}), **own} if isinstance(own, dict) else own
    return made(**values)


def _small(defaults: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in defaults.items():
        if isinstance(value, dict) and value.get("model_type"):
            values[name] = {**_small(value), "model_type": value["model_type"]}
        elif name.endswith("_token_id"):
            if isinstance(value, list) or (isinstance(value, int) and value >= 100):
                values[name] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}.get(name, 120)
        elif name in _SIZE_OF and isinstance(value, (int, float)) and not isinstance(value, bool):
            values[name] = _SIZE_OF[name]
    if defaults.get("qk_rope_head_dim"):  # latent attention: keys are of both kinds, and every head has its own
        values |= {"head_dim": 8, "qk_head_dim": 24, "num_key_value_heads": 4}
    return {name: value for name, value in values.items() if name in defaults}
