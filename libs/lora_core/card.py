"""An adapter in memory: `LoRACard` and its `LoRAWeights`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from lora_core.array import Array, dtype_name, is_weight_dtype
from lora_core.errors import InvalidAdapter

if TYPE_CHECKING:
    from lora_core.stack import Stack


@dataclass(frozen=True, eq=False)
class LoRAWeights:
    """What is trained of one layer `in → out`, in PEFT's orientation.

    The layer's output gains `scaling · (x @ a.T) @ b.T` (Hu et al. 2021, arXiv:2106.09685). For an embedding `in` is
    the vocabulary and x a one-hot row. All arrays are float32, float16 or bfloat16 bits (see `lora_core.array`).

    a: [rank, in]. b: [out, rank].
    alpha: this module's own alpha where it differs from the card's (PEFT's alpha_pattern).
    magnitude: [out]; with it the adapted weight's rows are scaled to these lengths (DoRA, arXiv:2402.09353).
    lora_bias: [out]; added to `x @ a.T @ b.T` before scaling (PEFT's lora_bias).
    base_bias: [out]; takes the place of the base layer's bias (PEFT's bias="all").
    """

    a: Array
    b: Array
    alpha: float | None = None
    magnitude: Array | None = None
    lora_bias: Array | None = None
    base_bias: Array | None = None

    @property
    def rank(self) -> int:
        """The module's own rank, whatever the card's."""
        return int(self.a.shape[0])

    @property
    def in_features(self) -> int:
        """The layer's inputs; an embedding's vocabulary."""
        return int(self.a.shape[1])

    @property
    def out_features(self) -> int:
        """The layer's outputs."""
        return int(self.b.shape[0])

    @property
    def vectors(self) -> dict[str, Array]:
        """The vectors of length `out` that are there, by name."""
        named = (("magnitude", self.magnitude), ("lora_bias", self.lora_bias), ("base_bias", self.base_bias))
        return {name: vector for name, vector in named if vector is not None}

    @property
    def arrays(self) -> dict[str, Array]:
        """Everything that is trained, by name: `a`, `b` and the vectors."""
        return {"a": self.a, "b": self.b, **self.vectors}

    def check(self, module: str) -> None:
        """Raises InvalidAdapter where dtypes or shapes contradict each other."""
        for name, array in self.arrays.items():
            dimensions = 2 if name in ("a", "b") else 1
            if not is_weight_dtype(array.dtype):
                raise InvalidAdapter(f"{module}.{name} dtype", str(array.dtype), "float32, float16 or bfloat16")
            if array.ndim != dimensions or 0 in array.shape:
                expected = f"{dimensions} dimension{'s'[: dimensions - 1]}, none of them 0"
                raise InvalidAdapter(f"{module}.{name} shape", array.shape, expected)
        if self.a.shape[0] != self.b.shape[1]:
            shapes = {"a": self.a.shape, "b": self.b.shape}
            raise InvalidAdapter(f"{module} shapes", shapes, "a [rank, in] and b [out, rank] of one rank")
        for name, vector in self.vectors.items():
            if vector.shape != self.b.shape[:1]:
                raise InvalidAdapter(
                    f"{module}.{name} shape", vector.shape, f"{self.b.shape[:1]}, one number an output"
                )
        if self.magnitude is not None and self.lora_bias is not None:
            raise InvalidAdapter(f"{module}.lora_bias", "beside a magnitude", "none with DoRA, as in PEFT")
        if self.alpha is not None:
            check_alpha(f"{module}.alpha", self.alpha)


@dataclass(frozen=True, eq=False)
class LoRACard:
    """One LoRA adapter: what it is called, how it is scaled, its matrices per module, and free metadata.

    name: how it is called. rank: the default rank; a module's own may differ (its matrices say).
    alpha: the scaling numerator. target_modules: module name suffixes, as PEFT has them (`q_proj`).
    weights: full module name in the base model (`model.layers.0.self_attn.q_proj`) → matrices.
    metadata: free text by key. rslora: scale by alpha/√rank (Kalajdzievski 2023, arXiv:2312.03732).
    digest: content digest of the file it was loaded from, "" for one made in memory (or changed with `replace`).

    Arrays of a loaded card are read-only views of the mapped file: nothing was copied.
    """

    name: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    weights: Mapping[str, LoRAWeights]
    metadata: Mapping[str, str] = field(default_factory=dict)
    rslora: bool = False
    digest: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 512:
            raise InvalidAdapter("name", self.name, "1 to 512 characters")
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise InvalidAdapter("rank", self.rank, "a whole number of at least 1")
        check_alpha("alpha", self.alpha)
        if not self.weights:
            raise InvalidAdapter("weights", {}, "matrices for at least one module")
        for stack in self.stacks:
            stack.layer(0).check(stack.modules[0])

    @cached_property
    def stacks(self) -> "tuple[Stack, ...]":
        """The same matrices as stacks of modules that share their shapes; one module each for a card made in memory."""
        from lora_core.stack import Stack, StackedWeights

        if isinstance(self.weights, StackedWeights):
            return self.weights.stacks
        return tuple(Stack.of(module, weights) for module, weights in self.weights.items())

    def scaling(self, module: str) -> float:
        """What `b @ a` of this module is multiplied with: alpha/rank, or alpha/√rank for rsLoRA."""
        weights = self.weights[module]
        return self.scaling_of(weights.rank, weights.alpha)

    def scaling_of(self, rank: int, alpha: float | None) -> float:
        """As `scaling`, for a module of this rank and this alpha of its own."""
        alpha = self.alpha if alpha is None else alpha
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    @cached_property
    def parameters(self) -> int:
        """How many numbers the adapter holds."""
        return sum(array.size for stack in self.stacks for array in stack.arrays.values())

    @cached_property
    def bytes(self) -> int:
        """How many bytes they take."""
        return sum(array.nbytes for stack in self.stacks for array in stack.arrays.values())

    @cached_property
    def max_rank(self) -> int:
        """The largest rank of any module: what a slot must hold."""
        return max(stack.rank for stack in self.stacks)

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that occur, sorted."""
        return tuple(sorted({dtype_name(array) for stack in self.stacks for array in stack.arrays.values()}))

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """What it has beyond plain LoRA: `dora`, `rslora`, `lora_bias`, `base_bias`, sorted."""
        names = {"magnitude": "dora"}
        found = {names.get(name, name) for stack in self.stacks for name in stack.vectors}
        return tuple(sorted(found | ({"rslora"} if self.rslora else set())))


def check_alpha(name: str, alpha: float) -> None:
    """Raises InvalidAdapter unless it is a finite number above 0."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or alpha <= 0:
        raise InvalidAdapter(name, alpha, "a finite number above 0")
