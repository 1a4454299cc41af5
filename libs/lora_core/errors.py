"""What can be wrong with an adapter. Every message gives what was found and what was expected."""

from pathlib import Path


class AdapterError(Exception):
    """Root of everything this package raises on purpose."""


class AdapterNotFound(AdapterError, FileNotFoundError):
    """No adapter at this path, or none of this name is loaded."""


class InvalidAdapter(AdapterError):
    """An adapter that cannot serve: one field of it, its value, and what would be right."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        self.field = field
        self.value = value
        self.expected = expected
        shown = repr(value)  # of a stranger's file, and of any length
        shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
        super().__init__(f"{field[:500]} is {shown}, expected {expected}")


class UnsupportedAdapter(InvalidAdapter):
    """A valid adapter of a kind that lora_core does not apply. Refused whole, never applied in part."""


class CorruptAdapter(AdapterError):
    """A file that is truncated, altered, foreign or hostile."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class UnsupportedBaseModel(AdapterError):
    """A base model that transformers does not build as a language model; the message names its kind."""


class NotDescribed(AdapterError):
    """A base model whose layers were never described, where torch is not installed to do it."""


class SlotsFull(AdapterError):
    """Every slot holds an adapter: unload one first."""


class DeviceUnavailable(AdapterError):
    """A device that this machine has not, or that cannot compute with the requested weights."""


class TooLittleMemory(AdapterError):
    """A base model that does not fit onto its device; the message has the numbers."""
