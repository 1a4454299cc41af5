"""Settings of the registry. Values come from the environment, LORAFLEET_ before the name."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fleet_kit.settings import ServiceSettings
from lora_core.base_model import SLOT_RANK
from services.registry.keeping import KeepRules


class RegistrySettings(ServiceSettings):
    """Settings of the registry."""

    port: int = 8101
    base_model: Path
    """Folder of the base model: config.json, *.safetensors, tokenizer."""
    base_model_name: str = ""
    """Name that requests use for it; empty takes the folder's name."""
    base_models: dict[str, Path] = Field(default_factory=dict)
    """Further base models that adapters may be made for, name → folder, as a JSON object."""
    max_artifact_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Largest upload, and largest file that is fetched to be validated."""

    max_rank: int = Field(default=SLOT_RANK, ge=1)
    """Largest rank of an adapter: what inference's slots hold, which read the same variable."""
    max_uploaded_bytes: int = Field(default=200 << 30, ge=1)
    """Of one domain: its uploaded files and the artifacts made of them, in all."""
    max_uploads_at_once: int = Field(default=4, ge=1)
    """Of one caller, and of one domain, in this process."""
    inspections_at_once: int = Field(default=2, ge=1)
    """Processes that check files; each may take a core."""
    inspection_bytes: int = Field(default=512 << 20, ge=16 << 20)
    """Memory that checking an adapter may take beside four times the size of its files."""
    inspection_seconds: float = Field(default=60, gt=0)
    """Time that checking an adapter may take beside a second for each 8 MiB of its files."""
    import_hosts: tuple[str, ...] = ()
    """Hosts that an import may ask, over https and at public addresses: the hub's, and those it redirects to. One with
    a dot before it stands for all below it. Empty: nothing is imported from a hub."""
    import_private_hosts: tuple[str, ...] = ()
    """Hosts (name or name:port) that may also be contacted at private addresses and over http: one's own mirror."""
    import_seconds: float = Field(default=900, gt=0)
    """Time that fetching an adapter from a hub may take."""
    answers_kept_days: int = Field(default=90, ge=1)
    """Days for which it is kept who gave an answer: so long can it be followed back to its training data."""
    api_keys_a_creator: int = Field(default=200, ge=1)
    """API keys that one subject may have made and that are good: every service holds all keys in memory."""
    adapter_retention: dict[str, KeepRules] = Field(default_factory=dict)
    """Domain → which versions are kept, as a JSON object; "*" is for domains that are not named."""
    gc_grace_hours: float = Field(default=24.0, gt=0)
    """Age below which no object is collected, and time that the files of a released version stay."""
    gc_every_hours: float = Field(default=0.0, ge=0)
    """Time between two collections that nobody asked for; 0: only `lorafleet gc --apply` collects."""
    gc_share: float = Field(default=0.25, gt=0, le=1)
    """Share of the service's objects beyond which a collection deletes nothing until somebody confirms the number."""
    rollout_look_seconds: float = Field(default=30.0, gt=0)
    """Between two looks at rollouts whose step may end by time alone; answers are looked at as they come."""
    follow_seconds: float = Field(default=60, gt=0)
    """Between two looks for base models with a new revision, which the versions of some domains follow."""
    scratch: Path | None = None
    """Where files are put while they are checked; empty takes the system's place for temporary files."""

    def rules_of(self, domain: str) -> KeepRules:
        """The rules of a domain: its own, those of "*", or the default."""
        return self.adapter_retention.get(domain) or self.adapter_retention.get("*") or KeepRules()

    @property
    def pinned(self) -> dict[str, Path]:
        """Every base model that adapters may be made for, name → folder."""
        return {self.base_model_name or self.base_model.name: self.base_model, **self.base_models}
