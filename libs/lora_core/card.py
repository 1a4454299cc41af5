"""An adapter in memory: `LoRACard` and its `LoRAWeights`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from lora_core.array import Array, dtype_name, is_weight_dtype
from lora_core.errors import InvalidAdapter


@dataclass(frozen=True, eq=False)
class LoRAWeights:
    """The two matrices of one linear layer `in → out`, in PEFT's orientation.

    The layer's output gains `scaling · (x @ a.T) @ b.T` (Hu et al. 2021, arXiv:2106.09685).

    a: [rank, in], b: [out, rank]; float32, float16 or bfloat16 bits (see `lora_core.array`).
    alpha: this module's own alpha where it differs from the card's (PEFT's alpha_pattern).
    """

    a: Array
    b: Array
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    @property
    def in_features(self) -> int:
        return int(self.a.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.b.shape[0])


@dataclass(frozen=True, eq=False)
class LoRACard:
    """One LoRA adapter: what it is called, how it is scaled, its matrices per module, and free metadata.

    name: how it is called. rank: the default rank; a module's own may differ (its matrices say).
    alpha: the scaling numerator. target_modules: module name suffixes, as PEFT has them (`q_proj`).
    weights: full module name in the base model (`model.layers.0.self_attn.q_proj`) → matrices.
    metadata: free text by key. rslora: scale by alpha/√rank (Kalajdzievski 2023, arXiv:2312.03732).
    digest: content digest of the file it was loaded from, "" for one made in memory.

    Arrays of a loaded card are read-only views of the mapped file: nothing was copied.
    """

    name: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    weights: Mapping[str, LoRAWeights]
    metadata: Mapping[str, str] = field(default_factory=dict)
    rslora: bool = False
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 512:
            raise InvalidAdapter("name", self.name, "1 to 512 characters")
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise InvalidAdapter("rank", self.rank, "a whole number of at least 1")
        _check_alpha("alpha", self.alpha)
        if not self.weights:
            raise InvalidAdapter("weights", {}, "matrices for at least one module")
        for module, weights in self.weights.items():
            _check_weights(module, weights)

    def scaling(self, module: str) -> float:
        """What `b @ a` of this module is multiplied with: alpha/rank, or alpha/√rank for rsLoRA."""
        weights = self.weights[module]
        alpha = self.alpha if weights.alpha is None else weights.alpha
        return alpha / (math.sqrt(weights.rank) if self.rslora else weights.rank)

    @cached_property
    def parameters(self) -> int:
        """How many numbers the matrices hold."""
        return sum(w.a.size + w.b.size for w in self.weights.values())

    @cached_property
    def bytes(self) -> int:
        """How many bytes the matrices take as stored."""
        return sum(w.a.nbytes + w.b.nbytes for w in self.weights.values())

    @cached_property
    def max_rank(self) -> int:
        """The largest rank of any module: what a slot must hold."""
        return max(w.rank for w in self.weights.values())

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that occur, sorted."""
        return tuple(sorted({dtype_name(m) for w in self.weights.values() for m in (w.a, w.b)}))


def _check_alpha(name: str, alpha: float) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or alpha <= 0:
        raise InvalidAdapter(name, alpha, "a finite number above 0")


def _check_weights(module: str, weights: LoRAWeights) -> None:
    a, b = weights.a, weights.b
    for matrix, letter in ((a, "A"), (b, "B")):
        if not is_weight_dtype(matrix.dtype):
            raise InvalidAdapter(f"{module}.{letter} dtype", str(matrix.dtype), "float32, float16 or bfloat16")
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise InvalidAdapter(f"{module}.{letter} shape", matrix.shape, "two dimensions, neither of them 0")
    if a.shape[0] != b.shape[1]:
        raise InvalidAdapter(
            f"{module} shapes", {"A": a.shape, "B": b.shape}, "A [rank, in] and B [out, rank] of one rank"
        )
    if weights.alpha is not None:
        _check_alpha(f"{module}.alpha", weights.alpha)
