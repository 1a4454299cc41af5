"""`LoRACard`: an adapter in memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from lora_core.array import dtype_name
from lora_core.errors import InvalidAdapter
from lora_core.stack import Stack, StackedWeights
from lora_core.weights import LoRAWeights, check_alpha

__all__ = ["LoRACard", "LoRAWeights"]


@dataclass(frozen=True, eq=False)
class LoRACard:
    """One LoRA adapter: what it is called, how it is scaled, its matrices per module, and free metadata.

    name: how it is called. rank: the default rank; a module's own may differ (its matrices have it).
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
    def stacks(self) -> tuple[Stack, ...]:
        """The same matrices as stacks of modules that share their shapes; one module each for a card made in memory."""
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
