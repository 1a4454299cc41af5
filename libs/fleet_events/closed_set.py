"""Closed sets of names, as protobuf strings carry them."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

__all__ = ["ClosedSet", "OrEmpty"]


class ClosedSet(StrEnum):
    """A member is its text, also in a message that shows it by `!r`."""

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class OrEmpty:
    """Reads a member of the set, or "", which is how protobuf leaves a string unset.

    pydantic's own reading of `Set | Literal[""]` refuses with two errors in places of their own; this one names the
    field alone and lists what it may be.
    """

    members: type[ClosedSet]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        texts = core_schema.literal_schema(["", *(member.value for member in self.members)])
        return core_schema.no_info_after_validator_function(self._member, texts)

    def _member(self, text: str) -> str:
        return self.members(text) if text else ""
