"""The JSON document inside an adapter file: everything about the card but the numbers, and a hash of each tensor.

Its sha256 is the adapter's content digest: it covers the metadata itself and, through their hashes, all tensors.
"""

import json
import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Dtype = Literal["float32", "float16", "bfloat16"]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Alpha = Annotated[float, Field(gt=0)]


class DocumentInvalid(ValueError):
    """The document is not one that this version reads."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Scales(_Strict):
    """The column with a block-quantised tensor's scales: float16, one for each block of the last dimension."""

    column: str
    block: Annotated[int, Field(ge=8, le=4096, multiple_of=8)]
    sha256: Sha256


class StackedTensor(_Strict):
    """One column: a kind of array of one projection over its layers, shape [modules, rank, in] or [modules, out].

    dtype: what the numbers are read as. storage: what the column holds; for `int8` and `int4`, see `scales`.
    """

    column: str
    dtype: Dtype
    shape: tuple[Size, ...] = Field(min_length=2, max_length=3)
    sha256: Sha256
    storage: Literal["plain", "int8", "int4"] = "plain"
    scales: Scales | None = None

    @model_validator(mode="after")
    def _scales_with_integers(self) -> Self:
        if (self.storage == "plain") != (self.scales is None):
            raise ValueError(f"storage {self.storage} {'with' if self.scales else 'without'} scales")
        return self

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class StoredStack(_Strict):
    """The modules that share a projection, a rank and shapes, in the order in which their matrices are stacked."""

    modules: tuple[str, ...] = Field(min_length=1)
    alphas: tuple[Alpha | None, ...] | None = None
    a: StackedTensor
    b: StackedTensor
    magnitude: StackedTensor | None = None
    lora_bias: StackedTensor | None = None
    base_bias: StackedTensor | None = None

    @property
    def tensors(self) -> dict[str, StackedTensor]:
        """By name, in the order of the columns."""
        every = {
            "a": self.a, "b": self.b,
            "magnitude": self.magnitude, "lora_bias": self.lora_bias, "base_bias": self.base_bias,
        }  # fmt: skip
        return {name: tensor for name, tensor in every.items() if tensor is not None}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count, a, b = len(self.modules), self.a.shape, self.b.shape
        if len(a) != 3 or len(b) != 3 or a[:2] != (count, a[1]) or b[:2] != a[:2]:
            raise ValueError(f"shapes {a} and {b} do not fit {count} modules of one rank")
        for name, tensor in list(self.tensors.items())[2:]:
            if tensor.shape != (count, b[2]):
                raise ValueError(f"{name} has the shape {tensor.shape}, expected {(count, b[2])}")
        if self.alphas is not None and len(self.alphas) != count:
            raise ValueError(f"{len(self.alphas)} alphas for {count} modules")
        return self


class StoredCard(_Strict):
    """A card without its arrays."""

    name: str
    rank: Size
    alpha: float
    rslora: bool
    target_modules: tuple[str, ...]
    metadata: dict[str, str]
    stacks: tuple[StoredStack, ...] = Field(min_length=1)

    @property
    def tensors(self) -> Iterator[StackedTensor]:
        """Of all stacks, in the order of the columns; a quantised tensor's scales follow it."""
        return (tensor for stack in self.stacks for tensor in stack.tensors.values())

    @model_validator(mode="after")
    def _modules_are_unique(self) -> Self:
        modules = [module for stack in self.stacks for module in stack.modules]
        if len(set(modules)) != len(modules):
            raise ValueError("a module occurs twice")
        return self

    def to_json(self) -> bytes:
        """The canonical form: sorted keys, no spaces, UTF-8, nothing that has its default value."""
        document = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, document: bytes) -> Self:
        """Raises DocumentInvalid with the first reason."""
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "document"
            raise DocumentInvalid(f"card document: {where}: {first['msg']}") from None
