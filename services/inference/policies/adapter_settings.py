"""Settings of adapters at run time; docs/serving.md explains them to operators."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from fleet_kit.settings import ServiceSettings
from lora_core.profiles import Device
from services.inference.policies.environments import (
    PRESETS,
    Environment,
    Monitoring,
    Preloading,
    Quantisation,
    defaults_of,
)
from services.inference.policies.policy import ActivationPolicy
from services.inference.policies.pressure import Ladder
from services.inference.slots.allocation import Room, Rules

_DEFAULT = PRESETS["staging"]
SHARING = 8
"""Adapters that may share the memory of one of the largest rank."""


class AdapterSettings(ServiceSettings):
    """How adapters come into slots and leave them. Those that `environments.Preset` names take their defaults there."""

    environment: Environment = "staging"
    """Where this process runs: development, staging or production; chooses the defaults of settings below."""
    slots: int = Field(default=_DEFAULT.slots, ge=1)
    """Adapters of one base model held in memory at once, each of the largest rank. On the processor those of smaller
    ranks share that memory: up to `SHARING` times as many."""
    cache_bytes: int = Field(default=_DEFAULT.cache_bytes, ge=0)
    """Artifacts on disk, least recently used ones are deleted above this size."""
    preloading: Preloading = _DEFAULT.preloading
    """lazy: adapters come in when they are requested. active: those that become active or are predicted take free
    slots. aggressive: predicted ones also take the slots of idle adapters."""
    hot_reload: bool = _DEFAULT.hot_reload
    """A new version of a family that is in a slot is brought in at once, before anything that is merely preloaded."""
    redundancy: bool = _DEFAULT.redundancy
    """Every active adapter is kept on disk, preloaded or not, so that an outage of the object store stops none."""
    monitoring: Monitoring = _DEFAULT.monitoring
    """detailed: token counts by who answered: base model, adapter or weighted set. basic: their sum."""
    metrics_adapter_ids: bool = False
    """Whether detailed token counts name adapters. Ids reveal domains to every reader of /metrics."""
    quantisation: Quantisation = _DEFAULT.quantisation
    """profile: adapters are kept and served in the storage that `lora_core.profiles` has for their type and device, if
    they pass its quality threshold. none: as they were trained."""
    device_profile: Device = "server"
    """The device whose profiles are used."""
    adapter_types: dict[str, str] = Field(default_factory=dict)
    """Family → the type whose profiles are used (JSON); else the metadata `adapter_type` of its artifact."""

    pinned: frozenset[str] = frozenset()
    """Families and adapter ids whose active versions are never evicted (JSON); fewer than `slots`."""
    workflows: dict[str, list[str]] = Field(default_factory=dict)
    """Name of a workflow → adapter ids and families, loaded together when a request first names it (JSON)."""
    prediction_threshold: float = Field(default=0.7, gt=0, lt=1)
    """Adapters that are likelier than this to be requested next are preloaded."""
    slot_patience: float = Field(default=2.0, ge=0)
    """Seconds after which a request that waits for a slot goes before later ones, and adapters in use give way."""

    memory_limit: int = Field(default=0, ge=0)
    """Bytes that this process shall keep resident at most, beside the limits of machine and cgroup; 0 is no limit."""
    pressure_medium: float = Field(default=0.75, gt=0)
    """Share of the tightest memory limit from which nothing is preloaded."""
    pressure_high: float = Field(default=0.85, gt=0)
    """From which adapters that have been idle for `idle_eviction` seconds leave."""
    pressure_critical: float = Field(default=0.95, gt=0)
    """From which only adapters in use and pinned ones stay."""
    pressure_every: float = Field(default=5.0, gt=0)
    """Seconds between readings."""
    idle_eviction: float = Field(default=600.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Mapping[str, object]) -> dict[str, object]:
        return defaults_of(str(given.get("environment", cls.model_fields["environment"].default))) | dict(given)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.pinned) >= self.slots:
            raise ValueError(
                f"{len(self.pinned)} adapters are pinned and there are {self.slots} slots: one has to stay free for "
                f"others. Set LORAFLEET_SLOTS to {len(self.pinned) + 1} or more, or pin fewer."
            )
        if not self.pressure_medium <= self.pressure_high <= self.pressure_critical:
            raise ValueError("expected pressure_medium <= pressure_high <= pressure_critical")
        return self

    @property
    def spare_slots(self) -> int:
        """Further slots of the engine: one where compressed adapters are measured beside the original."""
        return int(self.quantisation == "profile")

    def room(self, max_rank: int, *, shared: bool) -> Room:
        """Of a base model's slots. shared: do adapters share memory by their ranks, of `max_rank` at most?"""
        if not shared:
            return Room(self.slots, self.slots)
        return Room(self.slots * min(SHARING, max_rank), self.slots * max_rank)

    @property
    def rules(self) -> Rules:
        return Rules(patience=self.slot_patience, replace_idle=self.preloading == "aggressive")

    @property
    def activation(self) -> ActivationPolicy:
        return ActivationPolicy(self.preloading, self.hot_reload, self.redundancy, self.pinned)

    @property
    def ladder(self) -> Ladder:
        return Ladder(self.pressure_medium, self.pressure_high, self.pressure_critical)
