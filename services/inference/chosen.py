"""`Chosen`: who answers a request."""

from dataclasses import dataclass

from fleet_events.v1 import Adapter, RolloutPart
from services.inference.base_models import ServedBaseModel
from services.inference.http.provenance import Fallback, Provenance, RolledOut, Routed, Weighted
from services.inference.metrics import AnsweredBy
from services.inference.resolution import Base


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who answers a request: an adapter, or the base model where `adapter` is None.

    `mix`: the adapters of a weighted set; `adapter` is then the one of the largest weight. `fallback`: why this
    is not what was requested. `fallback_model`: the model that may answer where this cannot be loaded. `part`: its part
    in the family's rollout; `beside`: the candidate that is to answer too, shown to nobody.
    """

    requested: str
    hosted: ServedBaseModel
    adapter: Adapter | None = None
    routed: Routed | None = None
    mix: tuple[tuple[Adapter, float], ...] = ()
    fallback: Fallback | None = None
    fallback_model: str | None = None
    part: RolloutPart | None = None
    beside: Adapter | None = None

    @property
    def base(self) -> Base:
        return self.hosted.base

    @property
    def adapters(self) -> list[Adapter]:
        """All that answer."""
        return [one for one, _ in self.mix] or ([self.adapter] if self.adapter else [])

    @property
    def of_engine(self) -> str | dict[str, float] | None:
        """As the engine's rows are set."""
        return {one.adapter_id: weight for one, weight in self.mix} or self.adapter_id or None

    @property
    def answered_by(self) -> AnsweredBy:
        return "mix" if self.mix else "adapter" if self.adapter else "base"

    @property
    def adapter_id(self) -> str:
        return self.adapter.adapter_id if self.adapter else ""

    @property
    def domain(self) -> str:
        """Of the adapter that answers; empty for the base model."""
        return self.adapter.domain if self.adapter else ""

    @property
    def provenance(self) -> Provenance:
        return Provenance(
            adapter_id=self.adapter_id or None,
            artifact_sha256=self.adapter.artifact.blob.sha256 if self.adapter else None,
            base_model=self.base.name,
            base_model_revision=self.base.revision,
            routed=self.routed,
            mix=[
                Weighted(adapter_id=one.adapter_id, artifact_sha256=one.artifact.blob.sha256, weight=weight)
                for one, weight in self.mix
            ]
            or None,
            fallback=self.fallback,
            rollout=RolledOut(rollout_id=self.part.rollout_id, step=self.part.step, arm=self.part.arm)
            if self.part
            else None,
        )
