"""Publish which adapters came into this replica's slots, and which left them."""

from dataclasses import dataclass

import structlog

from fleet_events.v1 import Adapter, AdapterLoaded, AdapterUnloaded
from services.inference.publisher import Publisher
from services.inference.slots.states import Proof

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SlotEvents:
    """Publishes for one replica; both methods return at once."""

    publisher: Publisher
    replica: str

    def loaded(self, adapter: Adapter, proof: Proof, seconds: float) -> None:
        """An adapter is in a slot and proved, after so many seconds of loading."""
        log.info("adapter_loaded", adapter_id=adapter.adapter_id, modules=proof.modules_bound, delta=proof.max_delta)
        self.publisher.publish(
            AdapterLoaded(
                adapter_id=adapter.adapter_id,
                domain=adapter.domain,
                artifact_sha256=adapter.artifact.blob.sha256,
                replica=self.replica,
                load_ms=seconds * 1000,
                modules_bound=proof.modules_bound,
                max_delta=proof.max_delta,
            ),
            entity=adapter.adapter_id,
        )

    def unloaded(self, adapter: Adapter, reason: str) -> None:
        """An adapter has left its slot."""
        log.info("adapter_unloaded", adapter_id=adapter.adapter_id, reason=reason)
        self.publisher.publish(
            AdapterUnloaded(
                adapter_id=adapter.adapter_id,
                domain=adapter.domain,
                artifact_sha256=adapter.artifact.blob.sha256,
                replica=self.replica,
                reason=reason,
            ),
            entity=adapter.adapter_id,
        )
