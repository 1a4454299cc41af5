"""The one interface of all sources: a part of the recipe that puts what it names on disk."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from services.trainer.datasets.build_fault import BuildFault, CannotBuild
from services.trainer.datasets.columns import Columns
from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.records import Kind
from services.trainer.datasets.worker.spec import InputFile


@dataclass(frozen=True)
class Access:
    """For whom a source reads, and through what. `field` names the source in faults, for example `sources.0`."""

    domain: str
    kind: Kind
    service: DatasetContext
    field: str

    @property
    def limit(self) -> int:
        """Bytes that one source may give."""
        return self.service.settings.source_bytes

    def fault(self, name: str, value: object, expected: str) -> CannotBuild:
        """The refusal of one of the source's fields."""
        return CannotBuild(BuildFault(field=f"{self.field}.{name}", value=str(value), expected=expected))


@dataclass(frozen=True)
class Gathered:
    """Files of rows on disk. `facts` go on the card beside the source itself."""

    files: tuple[InputFile, ...]
    facts: Mapping[str, object] = field(default_factory=dict)


class Source(BaseModel, ABC):
    """One source of a recipe.

    `columns` names which column of a row holds what; `unusable` decides whether a row that makes no record refuses
    the whole build or is left out and counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    columns: Columns = Columns()
    unusable: Literal["refuse", "drop"] = "refuse"

    origin: ClassVar[str]
    """What records of it name as their origin, unless the source has a better name."""

    def check(self, access: Access) -> None:
        """What can be checked without reading anything, so that a request is refused at once.

        Raises:
            CannotBuild: a setting does not have what the source names, or the domain may not reach it.
        """

    @abstractmethod
    async def gather(self, to: Path, access: Access) -> Gathered:
        """Put the rows of a checked source on disk, in bounded memory.

        Args:
            to: an empty folder for them.

        Raises:
            CannotBuild: the source cannot be read as it is named; trying again changes nothing.
        """

    def originates(self) -> str:
        """The origin of its records."""
        return self.origin


class BoundedFile:
    """A file of lines that refuses to grow beyond a number of bytes."""

    def __init__(self, file: IO[bytes], access: Access, name: str) -> None:
        self._file = file
        self._access = access
        self._name = name
        self.bytes = 0
        self.lines = 0

    def write(self, line: bytes) -> None:
        """Add one line, without its end; raises `CannotBuild` when that is one too many."""
        self.bytes += len(line) + 1
        if self.bytes > self._access.limit:
            found = f"more than {self._access.limit} bytes"
            raise self._access.fault(self._name, found, "a narrower one, or a higher LORAFLEET_SOURCE_BYTES")
        self.lines += 1
        self._file.write(line)
        self._file.write(b"\n")
