"""Base layers that can carry an adapter: which they are, their sizes, and their weights as plain numbers."""

from typing import TypeAlias, TypeGuard

import torch
from torch import nn

Adaptable: TypeAlias = nn.Linear | nn.Embedding
SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that read one input where they are beside each other."""


def is_adaptable(module: object) -> TypeGuard[Adaptable]:
    """Linear layers (bitsandbytes' Linear4bit and Linear8bitLt are such), and embeddings that are lookups and a factor.

    Not those to which a model's own code gives another formula, as Llama 4's router, which is a Linear of two results.
    """
    if isinstance(module, nn.Embedding):
        return module.max_norm is None and (type(module).forward is nn.Embedding.forward or _is_scaled_lookup(module))
    if not isinstance(module, nn.Linear):
        return False
    of_a_model = type(module).__module__.startswith("transformers.models.")
    return type(module).forward is nn.Linear.forward or not of_a_model or _gives_one_output(module)


def output_scale(module: Adaptable) -> float:
    """What an embedding's rows are multiplied with as they are looked up (Gemma: √hidden); 1 of every other layer."""
    scale = getattr(module, "embed_scale", 1.0) if isinstance(module, nn.Embedding) else 1.0
    return float(torch.as_tensor(scale).to(module.weight.dtype)) if isinstance(module, nn.Embedding) else 1.0


def _gives_one_output(module: nn.Linear) -> bool:
    """Does a model's own kind of Linear (Falcon's) turn [1, in] into [1, out]?"""
    with torch.no_grad():
        try:
            output: object = module(torch.zeros((1, module.in_features)).to(module.weight))
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
    return isinstance(output, torch.Tensor) and output.shape == (1, module.out_features)


def _is_scaled_lookup(module: nn.Embedding) -> bool:
    scale = getattr(module, "embed_scale", None)
    if not (isinstance(scale, (int, float)) or (isinstance(scale, torch.Tensor) and scale.numel() == 1)):
        return False
    if module.weight.is_meta:
        return True
    with torch.no_grad():
        ends = torch.tensor([0, module.num_embeddings - 1], device=module.weight.device)
        rows = module.weight[ends]
        return bool(torch.equal(module(ends), rows * torch.as_tensor(scale).to(rows)))


def dimensions(module: Adaptable) -> tuple[int, int]:
    """(out, in); an embedding is a linear layer from its vocabulary."""
    if isinstance(module, nn.Embedding):
        return module.embedding_dim, module.num_embeddings
    return module.out_features, module.in_features


def is_quantised(module: Adaptable) -> bool:
    """Are its weights packed integers (bitsandbytes) and not floating point numbers?"""
    return not module.weight.is_floating_point()


def compute_dtype(module: Adaptable) -> torch.dtype:
    """The floating point type in which the layer computes."""
    if not is_quantised(module):
        return module.weight.dtype
    declared = getattr(module, "compute_dtype", None)
    return declared if isinstance(declared, torch.dtype) else torch.float32


def dense_weight(module: Adaptable) -> torch.Tensor:
    """The weight as numbers, [out, in]; a quantised layer gives it for the identity matrix.

    Exact for 4-bit layers: each output is one weight and zeros. 8-bit layers quantise their input too; an identity row
    survives that to within float16.
    """
    if isinstance(module, nn.Embedding):
        return module.weight.detach().t()
    if not is_quantised(module):
        return module.weight.detach()
    with torch.no_grad():
        identity = torch.eye(module.in_features, dtype=compute_dtype(module), device=module.weight.device)
        rows: torch.Tensor = module(identity)
        if module.bias is not None:
            rows = rows - module.bias
        return rows.t()


def bias_of(module: Adaptable) -> torch.Tensor | None:
    """The layer's bias, [out], if it has one."""
    bias: torch.Tensor | None = None if isinstance(module, nn.Embedding) else module.bias
    return bias
