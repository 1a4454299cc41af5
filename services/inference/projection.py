"""Keeps the catalogue and the consents up to date from the stream, and gives the adapters what to load and release."""

import asyncio
from collections.abc import Callable

import structlog
from nats.js import JetStreamContext

from fleet_events import Event
from fleet_events.topology import followed_by
from fleet_events.v1 import Adapter, PolicyChanged
from fleet_kit import tasks
from fleet_kit.cloudevents import Envelope
from fleet_kit.projection import follow
from services.inference.base_models import BaseModels
from services.inference.catalogue import Catalogue, CatalogueEvent, Standing
from services.inference.policies.preloading import Preloading
from services.inference.recording.consent import Consents

log = structlog.get_logger()

FOLLOWED = followed_by("inference")


class Projection:
    """The newest catalogue and consents. `caught_up` is set once the stream has been read to its end at start."""

    def __init__(self, hosting: BaseModels, preloading: Preloading) -> None:
        self.catalogue = Catalogue()
        self.consents = Consents()
        self.consents_changed: Callable[[], None] = lambda: None
        """Called when a consent has changed."""
        self.caught_up = asyncio.Event()
        self.position = 0
        """Sequence of the newest fact that is applied."""
        self._hosting = hosting
        self._preloading = preloading
        self._replayed = False

    async def run(self, jetstream: JetStreamContext) -> None:
        """Follows the stream for ever."""
        preloading = asyncio.create_task(self._preload_at_start())
        try:
            await follow(
                jetstream, FOLLOWED.subjects, FOLLOWED.events, self._apply, self.caught_up, passed=self._passed
            )
        finally:
            await tasks.end(preloading)

    async def _preload_at_start(self) -> None:
        # What was active once and is no longer must not be loaded on the way through the past.
        await self.caught_up.wait()
        self._replayed = True
        for adapter in self.catalogue.active.values():
            self._preloading.activated(adapter)
        for _, candidate in self.catalogue.running.values():
            self._preloading.activated(candidate)

    async def _apply(self, event: Event, _envelope: Envelope) -> None:
        if isinstance(event, PolicyChanged):
            self._apply_policy(event)
        if not isinstance(event, CatalogueEvent):
            return
        before, self.catalogue = self.catalogue, self.catalogue.apply(event)
        if self._replayed and self.catalogue is not before:
            self._follow_up(before)

    def _apply_policy(self, event: PolicyChanged) -> None:
        before, self.consents = self.consents, self.consents.apply(event)
        if self.consents is not before:
            self.consents_changed()

    def _passed(self, sequence: int) -> None:
        self.position = sequence

    def _follow_up(self, before: Catalogue) -> None:
        active = self.catalogue.active
        for family, adapter in active.items():
            if before.active.get(family) != adapter:
                self._preloading.activated(adapter)
        for family, adapter in before.active.items():
            now = active.get(family)
            if now is None or now.adapter_id != adapter.adapter_id:
                self._retire(adapter, "deactivated" if now is None else "replaced")
        self._follow_rollouts(before)
        for adapter_id, record in self.catalogue.records.items():
            changed = record is not before.records.get(adapter_id)
            if changed and record.adapter and self.catalogue.standing(adapter_id) is Standing.REJECTED:
                self._retire(record.adapter, "rejected")

    def _follow_rollouts(self, before: Catalogue) -> None:
        """A candidate is brought in when its rollout begins, and leaves when that ends without its activation."""
        running, active = self.catalogue.running, self.catalogue.active
        for family, (rollout, candidate) in running.items():
            if (held := before.running.get(family)) is None or held[0].rollout_id != rollout.rollout_id:
                self._preloading.activated(candidate)
        for family, (rollout, candidate) in before.running.items():
            goes_on = running.get(family)
            if goes_on is not None and goes_on[0].candidate_id == rollout.candidate_id:
                continue
            if active.get(family) != candidate:
                self._retire(candidate, "rolled back")

    def _retire(self, adapter: Adapter, reason: str) -> None:
        if hosted := self._hosting.of_adapter(adapter):
            hosted.adapters.retire(adapter.adapter_id, reason)
