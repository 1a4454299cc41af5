"""What is wrong with a training request, as a value: the field, what it has, and what would be right."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a request: the field, the value it has, and what would be right."""

    field: str
    value: object
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value!r} is refused, expected {self.expected}"


class InvalidRequest(Exception):
    """A job that can never succeed as requested. Carries all its faults, not the first."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults
