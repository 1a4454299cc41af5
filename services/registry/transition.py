"""What a transition takes and returns: who acts, what changed, which events to publish, why a step is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from fleet_events import Event
from services.registry.family import Adapter, Evaluation, Family
from services.registry.version import SemVer


class RegistryError(Exception):
    """A transition that the rules do not allow. The message has what to do instead."""


class UnknownAdapter(RegistryError):
    def __init__(self, adapter_id: str) -> None:
        super().__init__(f"no adapter {adapter_id!r} is registered; GET /v1/adapters lists those that are")
        self.adapter_id = adapter_id


class DuplicateVersion(RegistryError):
    """The family has this version already (AM-1.3)."""

    def __init__(self, taken: str, suggested: SemVer) -> None:
        super().__init__(f"{taken} exists already; the next free version is {suggested}")
        self.taken = taken
        self.suggested = suggested


class JobReused(RegistryError):
    def __init__(self, job_id: str, adapter_id: str) -> None:
        super().__init__(
            f"job {job_id!r} registered {adapter_id} with another artifact; one job makes one artifact, "
            "submit the new one under a job id of its own"
        )


class NotTheArtifact(RegistryError):
    """A statement about other bytes than those registered under this id."""

    def __init__(self, adapter: Adapter, sha256: str, what: str) -> None:
        super().__init__(
            f"{what} is about artifact {sha256 or '(none)'}, but {adapter.adapter_id} is {adapter.artifact_sha256}"
        )


class NotAllowed(RegistryError):
    """The version's status or the domain's policy forbids the step. `field` names what stands against it."""

    def __init__(self, message: str, field: str = "status") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something, when and why."""

    by: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit trail: who, when, why, before and after.

    `subject` is an adapter id, or `policy/<domain>`.
    """

    subject: str
    action: str
    act: Act
    before: dict[str, object]
    after: dict[str, object]
    revision: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event to publish and the adapter that it is about."""

    event: Event
    adapter_id: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a transition leads to. No events and no entries: nothing has changed."""

    family: Family
    events: tuple[Announcement, ...] = ()
    entries: tuple[AuditEntry, ...] = ()
    adapter_id: str = ""
    evaluation: Evaluation | None = None

    def then(self, following: Change) -> Change:
        """This change and the one made on top of it, as one."""
        return replace(following, events=self.events + following.events, entries=self.entries + following.entries)
