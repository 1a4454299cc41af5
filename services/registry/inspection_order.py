"""The messages between the registry and the process that inspects files, as JSON over pipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from lora_core.layer_shapes import Description, LayerShapes
from services.registry.checkpoint import Contents
from services.registry.imports.adoption import Adopted


class Base(BaseModel):
    """The base model that files are held against: its layers by name, and its folder, for copies of its weights."""

    shapes: dict[str, tuple[int, int]]
    description: Description | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, layers: LayerShapes) -> Self:
        return cls(shapes=dict(layers), description=layers.description, folder=layers.folder)

    @property
    def layers(self) -> LayerShapes:
        return LayerShapes(self.shapes, self.description, self.folder)


class Convert(BaseModel):
    """A PEFT folder becomes an Arrow artifact."""

    task: Literal["convert"] = "convert"
    folder: Path
    name: str
    to: Path
    base: Base


class Open(BaseModel):
    """An Arrow artifact is held against the PEFT folder it was made from, and `forms` of it against the artifact."""

    task: Literal["open"] = "open"
    artifact: Path
    checkpoint: Path
    base: Base
    forms: tuple[tuple[str, Path], ...] = ()


class Unpack(BaseModel):
    """Of a tar or zip what an adapter can have is written below `to`, `most` bytes of it."""

    task: Literal["unpack"] = "unpack"
    archive: Path
    to: Path
    most: int


class Adopt(BaseModel):
    """A folder in any form becomes an Arrow artifact and the files of a PEFT folder."""

    task: Literal["adopt"] = "adopt"
    folder: Path
    name: str
    artifact: Path
    peft: Path
    base_model: Path
    base: Base


class Limits(BaseModel):
    """memory: bytes beyond those of the imported libraries. seconds: of processor time, and of waiting."""

    memory: int
    seconds: float


Work = Convert | Open | Unpack | Adopt


class Order(BaseModel):
    """What the process reads."""

    limits: Limits
    work: Annotated[Work, Field(discriminator="task")]


class Fault(BaseModel):
    """Why it cannot serve."""

    field: str
    message: str


class Outcome(BaseModel):
    """What the process writes: one of these, by its order."""

    contents: Contents | None = None
    adopted: Adopted | None = None
    unpacked: int | None = None
    fault: Fault | None = None
