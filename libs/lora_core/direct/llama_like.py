"""`LlamaLike`: the parts of a model of the Llama family, by what a direct forward pass needs of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from transformers import (
    GraniteForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    SmolLM3ForCausalLM,
)

from lora_core.direct.products import Product, product_of
from lora_core.kv_cache import grows

_FAMILY = (
    GraniteForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    SmolLM3ForCausalLM,
)
_ROTATIONS = {"default", "linear", "llama3", "yarn"}
"""Kinds whose angles depend on a token's place alone, not on how long the text is."""

KINDS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""Projections that are one product each, in the order in which a layer computes them."""


@dataclass(frozen=True, eq=False)
class Layer:
    """products: in the order of `KINDS`. before_attention, before_mlp: weights of the norms, [hidden].

    of_heads: weights of the norm of each query and key head, [heads + key heads, head_dim]; None where there is none.
    turned: are its queries and keys rotated by their position? Not in every fourth layer of SmolLM3.
    """

    before_attention: torch.Tensor
    products: tuple[Product, Product, Product, Product]
    of_heads: torch.Tensor | None
    before_mlp: torch.Tensor
    turned: bool


@dataclass(frozen=True)
class Multipliers:
    """Of embeddings, of what a part adds to the residual stream, of queries with keys, of logits: 1 but for Granite.

    attention: None is the square root of head_dim, inverted.
    """

    embedding: float
    residual: float
    attention: float | None
    logits: float

    @classmethod
    def of(cls, config: Any) -> Self:
        if not hasattr(config, "residual_multiplier"):
            return cls(1.0, 1.0, None, 1.0)
        scaling = 1.0 / config.logits_scaling
        return cls(config.embedding_multiplier, config.residual_multiplier, config.attention_multiplier, scaling)


@dataclass(frozen=True, eq=False)
class LlamaLike:
    """Weights and sizes. projections: for each of `KINDS`, of each layer the modules. angles: gives cos and sin."""

    embedding: torch.Tensor
    layers: Sequence[Layer]
    norm: torch.Tensor
    head: Product
    projections: Sequence[Sequence[Sequence[nn.Linear]]]
    angles: nn.Module
    epsilon: float
    heads: int
    key_heads: int
    head_dim: int
    multipliers: Multipliers
    _modules: Sequence[nn.Module]
    _places: Sequence[tuple[dict[str, nn.Module | None], str, nn.Module]]
    _weights: Sequence[tuple[nn.Parameter, tuple[int, int]]]

    @classmethod
    def of(cls, model: PreTrainedModel, packed: bool) -> Self | None:
        """None for a model that is computed through transformers alone: another family, device or attention."""
        config: Any = model.config
        if type(model) not in _FAMILY or model.device.type != "cpu" or config._attn_implementation != "sdpa":
            return None
        whole: Any = model
        inner, head = whole.model, whole.lm_head
        kind = getattr(inner.rotary_emb, "rope_type", "")
        if kind not in _ROTATIONS or config.hidden_act != "silu" or not grows(config):
            return None
        blocks = list(inner.layers)
        projections = [[[_projection(block, name) for name in names] for block in blocks] for names in KINDS]
        products = [[product_of(modules, packed) for modules in layers] for layers in projections]
        output = product_of([head], packed)
        if output is None or any(product is None for layers in products for product in layers):
            return None
        layers = [
            Layer(
                block.input_layernorm.weight,
                own,
                _of_heads(block.self_attn, config),
                block.post_attention_layernorm.weight,
                bool(getattr(block.self_attn, "use_rope", True)),
            )
            for block, own in zip(blocks, zip(*products, strict=True), strict=True)
        ]
        attention = blocks[0].self_attn
        return cls(
            embedding=inner.embed_tokens.weight,
            layers=layers,
            norm=inner.norm.weight,
            head=output,
            projections=projections,
            angles=inner.rotary_emb,
            epsilon=config.rms_norm_eps,
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            head_dim=attention.head_dim,
            multipliers=Multipliers.of(config),
            _modules=list(model.modules()),
            _places=list(_places(model)),
            _weights=[(weight, _state(weight)) for weight in model.parameters()],
        )

    @property
    def intact(self) -> bool:
        """Is the model as it was? Hooks, other layers or weights in the place of its own need its own forward."""
        return (
            all(modules[name] is module for modules, name, module in self._places)
            and not any(
                module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
                for module in self._modules
            )
            and all(_state(weight) == state for weight, state in self._weights)
            and not self._modules[0].training
        )


def _of_heads(attention: Any, config: Any) -> torch.Tensor | None:
    if not hasattr(attention, "q_norm"):
        return None
    queries, keys = (getattr(attention, name).weight.detach() for name in ("q_norm", "k_norm"))
    return torch.cat([queries.expand(config.num_attention_heads, -1), keys.expand(config.num_key_value_heads, -1)])


def _projection(block: Any, name: str) -> nn.Linear:
    parent = block.mlp if name in ("gate_proj", "up_proj", "down_proj") else block.self_attn
    module: nn.Linear = getattr(parent, name)
    return module


def _state(weight: torch.Tensor) -> tuple[int, int]:
    """Another one once its numbers are elsewhere or others."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _places(model: nn.Module) -> Iterator[tuple[dict[str, nn.Module | None], str, nn.Module]]:
    for parent in model.modules():
        for name, module in parent.named_children():
            yield parent._modules, name, module
