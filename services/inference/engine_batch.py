"""What the engine's thread needs of an engine and of the batch that it steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from services.inference.engine_rows import Row

if TYPE_CHECKING:
    from lora_core.sampling import Request


class Batch(Protocol):
    """Rows that decode together; `lora_core.batch` has the real one."""

    def step(self) -> Iterable[tuple[int, int, float]]:
        """(row, token id, log-probability) of each row that drew a token which is part of its answer."""
        ...

    def add(self, requests: "Sequence[Request]") -> Sequence[int]:
        """The numbers of the rows that they become. If one cannot join, none does."""
        ...

    def finish_reason(self, row: int) -> Literal["stop", "length", "cancelled", "failed"] | None: ...

    def fault(self, row: int) -> Exception | None:
        """What a row that "failed" failed with."""
        ...

    def alternatives(self, row: int) -> tuple[tuple[int, float], ...]:
        """Of the row's last step, see `Token`."""
        ...

    def cancel(self, row: int) -> None: ...
    def close(self) -> None: ...


class Starts(Protocol):
    """What the thread needs of an engine; what others do with it goes through `EngineThread.call`."""

    def start(self, requests: "Sequence[Request]") -> Batch: ...


@dataclass(slots=True)
class Running:
    """A batch and whose rows it has; a row leaves the mapping when it is done."""

    batch: Batch
    rows: dict[int, Row]
