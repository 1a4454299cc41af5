"""Which types of the generated classes have a name of their own, so that the whole fleet imports them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic.alias_generators import to_pascal

from fleet_events.rules import Rule

__all__ = ["NamedTypes"]

SETS = {
    "Dataset.kind": "RecordKind",
    "Export.kind": "ExportKind",
    "TrainingRequested.exports": "ExportKind",
    "PolicyChanged.personal_data": "PersonalDataAction",
    "Consent.personal_data": "PersonalDataAction",
    "Rollout.mode": "DeliveryMode",
    "Evidence.metric": "RolloutMetric",
    "RolloutPart.arm": "RolloutArm",
    "TrainingRequested.triggers": "RetrainingTrigger",
}
"""Message.field of a closed set → its class, where that is not the field's name."""
PATTERNS = {"domain": "DomainName"}
"""Field → the type that stands for its pattern."""


@dataclass(frozen=True)
class ClosedSetOf:
    """A closed set: its members, and what it is, which is the comment of the first field that has it."""

    members: tuple[str, ...]
    note: str


@dataclass
class NamedTypes:
    """Closed sets and patterns by their name. One name always stands for the same."""

    sets: dict[str, ClosedSetOf] = field(default_factory=dict)
    patterns: dict[str, str] = field(default_factory=dict)

    def name(self, message: str, field: str, rule: Rule, note: str) -> str:
        """Name of a field's type, empty where it has none.

        Raises:
            ValueError: another field has other members, or another pattern, under this name.
        """
        if rule.permitted:
            found = SETS.get(f"{message}.{field}") or to_pascal(field)
            known = self.sets.setdefault(found, ClosedSetOf(rule.permitted, note or f"`{message}.{field}`."))
            if known.members != rule.permitted:
                raise ValueError(f"{message}.{field}: {found} is {known.members} elsewhere; name this one in SETS")
            return found
        found = PATTERNS.get(field, "") if rule.pattern and rule.longest is None else ""
        if found and self.patterns.setdefault(found, rule.pattern) != rule.pattern:
            raise ValueError(f"{message}.{field}: {found} is {self.patterns[found]} elsewhere")
        return found

    def render(self) -> Iterator[str]:
        """Their definitions."""
        for name, closed in self.sets.items():
            yield f'\n\nclass {name}(ClosedSet):\n    """{closed.note}"""\n'
            for member in closed.members:
                yield f'    {re.sub("[^A-Z0-9]", "_", member.upper())} = "{member}"'
        for name, pattern in self.patterns.items():
            constant = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).upper()
            yield f"\n\n{constant} = {pattern!r}"
            yield f"{name} = Annotated[str, Field(pattern={constant})]"
