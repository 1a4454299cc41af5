"""Base layers that can carry an adapter: which they are, their sizes, and their weights as plain numbers."""

from typing import TypeAlias, TypeGuard

import torch
from torch import nn

Adaptable: TypeAlias = nn.Linear | nn.Embedding


def is_adaptable(module: object) -> TypeGuard[Adaptable]:
    """Linear layers (bitsandbytes' Linear4bit and Linear8bitLt are such) and embeddings that are lookups alone."""
    if isinstance(module, nn.Embedding):  # Gemma's scales its output: another formula
        return type(module).forward is nn.Embedding.forward and module.max_norm is None
    return isinstance(module, nn.Linear)


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
    """The weight as numbers, [out, in]; a quantised layer is asked for it by the identity matrix.

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
