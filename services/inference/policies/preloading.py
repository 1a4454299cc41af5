"""Brings adapters in before they are requested: those that become active, a workflow's, and likely ones."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from fleet_events.v1 import Adapter
from fleet_kit.auth import Caller
from services.inference import metrics
from services.inference.base_models import BaseModels
from services.inference.catalogue import Catalogue
from services.inference.errors import NotFound
from services.inference.policies.policy import ActivationPolicy
from services.inference.policies.predictor import Predictor
from services.inference.resolution import reaches
from services.inference.slots.allocation import Priority
from services.inference.slots.states import IN_SLOT

log = structlog.get_logger()

WORKFLOW_AGAIN = 600.0
"""Seconds after which a workflow that is named again is preloaded again: some of it may have been evicted."""


class Preloading:
    """`workflows`: name → adapter ids and families."""

    def __init__(
        self,
        hosting: BaseModels,
        policy: ActivationPolicy,
        predictor: Predictor,
        workflows: Mapping[str, Sequence[str]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosting = hosting
        self._policy = policy
        self._predictor = predictor
        self._workflows = workflows
        self._now = now
        self._named: dict[tuple[str, frozenset[str]], float] = {}

    def activated(self, adapter: Adapter) -> None:
        """An adapter has become active."""
        hosted = self._hosting.of_adapter(adapter)
        if hosted is None:
            return
        others = (view for view in hosted.adapters.views if view.adapter.family == adapter.family)
        in_slot = any(isinstance(view.state, IN_SLOT) for view in others if view.adapter != adapter)
        priority = self._policy.priority(adapter, family_in_slot=in_slot)
        if priority is not None:
            hosted.adapters.preload(adapter, priority)

    def requested(self, caller: Caller, workflow: str, adapters: Sequence[Adapter], catalogue: Catalogue) -> None:
        """A request runs on these: its workflow's adapters are brought in, and those likely to come next.

        Only adapters of domains that the caller reaches: no caller takes slots for what it may not use.
        """
        if workflow in self._workflows:
            self._begin(workflow, caller, catalogue)
        if self._policy.preloading == "lazy":
            return
        for adapter in adapters:
            observed = self._predictor.observe(caller.subject, workflow, adapter.family)
            if observed.outcome is not None:
                metrics.PREDICTIONS.labels(observed.outcome).inc()
            likely = [catalogue.active[family] for family in observed.likely if family in catalogue.active]
            self._bring([one for one in likely if reaches(caller, one.domain)], Priority.PREDICTION)

    asked = requested
    """The former name: a stand-in that is given to a `Generator` may have this one alone."""

    def _begin(self, workflow: str, caller: Caller, catalogue: Catalogue) -> None:
        found, missing = self.of_workflow(workflow, catalogue)
        reached = [one for one in found if reaches(caller, one.domain)]
        key = (workflow, frozenset(one.adapter_id for one in reached))
        if self._named.get(key, -math.inf) <= self._now() - WORKFLOW_AGAIN:
            self._named[key] = self._now()
            log.info("workflow_preloaded", workflow=workflow, adapters=sorted(key[1]), missing=missing)
            self._bring(reached, Priority.WORKFLOW)

    def of_workflow(self, workflow: str, catalogue: Catalogue) -> tuple[list[Adapter], list[str]]:
        """The adapters of a workflow, and names of those that are not active. Raises NotFound."""
        if workflow not in self._workflows:
            known = ", ".join(sorted(self._workflows)) or "none"
            raise NotFound(
                f"workflow {workflow!r} is not configured (known: {known}).",
                code="workflow_not_found",
                param="workflow",
            )
        return active_of(self._workflows[workflow], catalogue)

    def bring(self, adapters: Iterable[Adapter]) -> list[str]:
        """An operator wants them in slots; ids of those whose base model is here."""
        return self._bring(adapters, Priority.WORKFLOW)

    def _bring(self, adapters: Iterable[Adapter], priority: Priority) -> list[str]:
        brought = []
        for adapter in adapters:
            if hosted := self._hosting.of_adapter(adapter):
                hosted.adapters.preload(adapter, priority)
                brought.append(adapter.adapter_id)
        return brought


def active_of(
    names: Iterable[str], catalogue: Catalogue, reaches: Callable[[str], bool] = lambda _domain: True
) -> tuple[list[Adapter], list[str]]:
    """The active adapters that have these ids or are of these families, and the names of which there is none.

    `reaches`: which domains count; an adapter of another one is as if it were not there.
    """
    active = {one.adapter_id: one for one in catalogue.active.values()} | dict(catalogue.active)
    found = {name: one if (one := active.get(name)) and reaches(one.domain) else None for name in names}
    adapters = {one.adapter_id: one for one in found.values() if one is not None}
    return list(adapters.values()), [name for name, one in found.items() if one is None]
