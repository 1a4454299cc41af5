"""The JSON document inside an adapter file: everything about the card but the numbers, and a hash of each tensor.

Its sha256 is the adapter's content digest: it covers the metadata itself and, through their hashes, all tensors.
"""

import json
import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Dtype = Literal["float32", "float16", "bfloat16"]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DocumentInvalid(ValueError):
    """The document is not one that this version reads."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class StackedTensor(_Strict):
    """One column: the A (or B) matrices of one projection, shape [modules, rank, in] (or [modules, out, rank])."""

    column: str
    dtype: Dtype
    shape: tuple[Size, Size, Size] = Field(strict=False)
    sha256: Sha256

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Stack(_Strict):
    """The modules that share a projection, a rank and shapes, in the order in which their matrices are stacked."""

    modules: tuple[str, ...] = Field(strict=False, min_length=1)
    alphas: tuple[float | None, ...] | None = Field(strict=False, default=None)
    a: StackedTensor
    b: StackedTensor

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.modules)
        if self.a.shape[0] != count or self.b.shape[0] != count or self.a.shape[1] != self.b.shape[2]:
            raise ValueError(f"shapes {self.a.shape} and {self.b.shape} do not fit {count} modules of one rank")
        if self.alphas is not None and len(self.alphas) != count:
            raise ValueError(f"{len(self.alphas)} alphas for {count} modules")
        return self


class StoredCard(_Strict):
    """A card without its arrays."""

    name: str
    rank: Size
    alpha: float
    rslora: bool
    target_modules: tuple[str, ...] = Field(strict=False)
    metadata: dict[str, str]
    stacks: tuple[Stack, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _modules_are_unique(self) -> Self:
        modules = [module for stack in self.stacks for module in stack.modules]
        if len(set(modules)) != len(modules):
            raise ValueError("a module occurs twice")
        return self

    def to_json(self) -> bytes:
        """The canonical form: sorted keys, no spaces, UTF-8."""
        document = self.model_dump(mode="json")
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
