"""Which adapters are brought in when they become active. Pure."""

from dataclasses import dataclass

from fleet_events.v1 import Adapter
from services.inference.policies.environments import Preloading
from services.inference.slots.allocation import Priority


@dataclass(frozen=True, slots=True)
class ActivationPolicy:
    """Each field is described at the setting of its name."""

    preloading: Preloading = "active"
    hot_reload: bool = True
    redundancy: bool = False
    pinned: frozenset[str] = frozenset()

    def priority(self, adapter: Adapter, *, family_in_slot: bool) -> Priority | None:
        """With which priority an adapter that became active is brought in; None leaves it until it is requested.

        `family_in_slot`: another version of its family is loaded here.
        """
        if not self.pinned.isdisjoint({adapter.adapter_id, adapter.family}):
            return Priority.PINNED
        if self.hot_reload and family_in_slot:
            return Priority.WORKFLOW
        if self.preloading != "lazy":
            return Priority.ACTIVATION
        return Priority.DISK if self.redundancy else None
