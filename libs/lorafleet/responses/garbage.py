"""What collections of garbage answer, of every service that owns objects."""

from __future__ import annotations

from pydantic import Field

from lorafleet.responses.registry import Link
from lorafleet.responses.reply import Reply


class SweptKind(Reply):
    """The objects of one kind, and those of them that nothing refers to."""

    kind: str
    objects: int = 0
    bytes: int = 0
    referenced: int = 0
    young: int = 0
    unreferenced: int = 0
    unreferenced_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0


class Garbage(Reply):
    """The objects that a collection found, by kind."""

    applied: bool = False
    grace_hours: float = 0
    kinds: list[SweptKind] = Field(default_factory=list)
    refused: str = ""


class ObjectsAdopted(Reply):
    """The database whose objects they are now."""

    database_id: str
    generation: int


class GarbageOfRegistry(Garbage):
    """With the versions that were let go."""

    released: list[Link] = Field(default_factory=list)


class GarbageOfEvaluator(Garbage):
    """With the evaluations whose texts, and the golden versions whose samples were let go."""

    evaluations: list[Link] = Field(default_factory=list)
    golden: list[Link] = Field(default_factory=list)


class GarbageOfTrainer(Garbage):
    """With the data sets that were let go."""

    datasets: list[Link] = Field(default_factory=list)
