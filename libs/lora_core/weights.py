"""`LoRAWeights`: what is trained of one layer."""

import math
from dataclasses import dataclass

from lora_core.array import Array, is_weight_dtype
from lora_core.errors import InvalidAdapter


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
        """The module's own rank, which may differ from the card's."""
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


def check_alpha(name: str, alpha: float) -> None:
    """Raises InvalidAdapter unless it is a finite number above 0."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or alpha <= 0:
        raise InvalidAdapter(name, alpha, "a finite number above 0")
