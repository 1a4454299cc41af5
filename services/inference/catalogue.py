"""Which adapter versions exist and which answer for each family: a pure projection of the registry's events.

Order between subjects is not guaranteed and events repeat. Therefore the catalogue keeps, for each adapter
and each kind of change, only the highest revision seen: a join of maxima, which comes out the same for every
order and any number of repetitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from fleet_events.v1 import (
    Adapter,
    AdapterActivated,
    AdapterDeactivated,
    AdapterRegistered,
    AdapterReleased,
    Approved,
    CanaryAdvanced,
    CanaryRolledBack,
    CanaryStarted,
    Rejected,
    Rollout,
)
from services.inference.rollouts import Assignment, FamilyRollout, RolloutEvent, assign

VersionEvent = AdapterRegistered | Approved | Rejected | AdapterActivated | AdapterDeactivated | AdapterReleased
CatalogueEvent = VersionEvent | RolloutEvent
NEVER = -1


class Standing(StrEnum):
    """Where a version stands."""

    CANDIDATE = "candidate"
    APPROVED = "approved"
    REJECTED = "rejected"
    ACTIVE = "active"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one version; numbers are revisions of its family, -1 is never."""

    adapter_id: str
    family: str
    domain: str
    adapter: Adapter | None = None
    described: int = NEVER
    approved: int = NEVER
    approved_sha256: str = ""
    rejected: int = NEVER
    activated: int = NEVER
    deactivated: int = NEVER

    @property
    def withdrawn(self) -> bool:
        """Deactivated or rejected since it was last activated."""
        return max(self.deactivated, self.rejected) >= self.activated


@dataclass(frozen=True)
class Catalogue:
    """All records by adapter id, and by family the newest that is known of its rollouts."""

    records: Mapping[str, Record] = field(default_factory=dict)
    rollouts: Mapping[str, FamilyRollout] = field(default_factory=dict)

    def apply(self, event: CatalogueEvent) -> "Catalogue":
        """The catalogue after one event; itself where the event holds nothing newer."""
        if isinstance(event, CanaryStarted | CanaryAdvanced | CanaryRolledBack):
            found, known = FamilyRollout.of(event), self.rollouts.get(event.family)
            if known is not None and known.order >= found.order:
                return self
            return replace(self, rollouts={**self.rollouts, event.family: found})
        return self._of_version(event)

    def _of_version(self, event: VersionEvent) -> "Catalogue":
        match event:
            case AdapterRegistered() | AdapterActivated():
                adapter = event.adapter
                held = self._held(adapter.adapter_id, adapter.family, adapter.domain)
                new = _describe(held, adapter, event.revision)
                if isinstance(event, AdapterActivated):
                    new = replace(new, activated=max(new.activated, event.revision))
            case Approved():
                held = self._held(event.adapter_id, event.family, event.domain)
                # The digest decides between two of one revision, so that the order cannot.
                approved, sha256 = max((held.approved, held.approved_sha256), (event.revision, event.artifact_sha256))
                new = replace(held, approved=approved, approved_sha256=sha256)
            case Rejected() | AdapterReleased():  # what is released has no files any more: it serves as little
                held = self._held(event.adapter_id, event.family, event.domain)
                new = replace(held, rejected=max(held.rejected, event.revision))
            case AdapterDeactivated():
                held = self._held(event.adapter_id, event.family, event.domain)
                new = replace(held, deactivated=max(held.deactivated, event.revision))
        if new == self.records.get(new.adapter_id):
            return self
        return replace(self, records={**self.records, new.adapter_id: new})

    def _held(self, adapter_id: str, family: str, domain: str) -> Record:
        return self.records.get(adapter_id) or Record(adapter_id, family, domain)

    @cached_property
    def _leaders(self) -> Mapping[str, Record]:
        """Of each family, the version activated last, whether or not it has been withdrawn since."""
        leaders: dict[str, Record] = {}
        for record in self.records.values():
            if record.activated == NEVER:
                continue
            leader = leaders.get(record.family)
            if leader is None or _lead(record) > _lead(leader):
                leaders[record.family] = record
        return leaders

    @cached_property
    def families(self) -> frozenset[str]:
        """Every family seen."""
        return frozenset(record.family for record in self.records.values())

    @cached_property
    def active(self) -> Mapping[str, Adapter]:
        """The active version of each family that has one.

        A newer activation in a family supersedes the older one even before the older one's deactivation arrives.
        """
        return {
            family: leader.adapter
            for family, leader in self._leaders.items()
            if leader.adapter is not None and not leader.withdrawn
        }

    @cached_property
    def running(self) -> Mapping[str, tuple[Rollout, Adapter]]:
        """Of each family with a rollout that runs: the rollout and its candidate.

        What the registry did later to one of its versions has a higher revision and ends it here too, even before
        the event of the rollout's end arrives.
        """
        found = {}
        for family, newest in self.rollouts.items():
            leader, candidate = self._leaders.get(family), self.records.get(newest.rollout.candidate_id)
            if not newest.running or leader is None or candidate is None or candidate.adapter is None:
                continue
            incumbent_serves = leader.adapter_id == newest.rollout.incumbent_id and not leader.withdrawn
            began_before = max(leader.activated, candidate.rejected) < newest.revision
            if incumbent_serves and began_before and candidate.approved != NEVER:
                found[family] = (newest.rollout, candidate.adapter)
        return found

    def assign(self, adapter: Adapter, caller: str) -> Assignment | None:
        """Who answers this caller for an active version while its family has a rollout; None while it has none."""
        running = self.running.get(adapter.family)
        if running is None or running[0].incumbent_id != adapter.adapter_id:
            return None
        return assign(adapter, running[1], running[0], caller)

    def standing(self, adapter_id: str) -> Standing | None:
        """Where a version stands; None for one that no event has named."""
        record = self.records.get(adapter_id)
        if record is None:
            return None
        active = self.active.get(record.family)
        if active is not None and active.adapter_id == adapter_id:
            return Standing.ACTIVE
        if record.rejected > max(record.approved, record.activated):
            return Standing.REJECTED
        if record.activated != NEVER:
            return Standing.INACTIVE
        return Standing.APPROVED if record.approved != NEVER else Standing.CANDIDATE


def _describe(held: Record, adapter: Adapter, revision: int) -> Record:
    known = (held.described, held.adapter.artifact.blob.sha256 if held.adapter else "")
    if known >= (revision, adapter.artifact.blob.sha256):
        return held
    return replace(held, adapter=adapter, described=revision)


def _lead(record: Record) -> tuple[int, str]:
    return record.activated, record.adapter_id
