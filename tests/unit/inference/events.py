"""Events of an invented family, for the tests of this folder."""

from fleet_events.v1 import (
    Adapter,
    AdapterActivated,
    AdapterDeactivated,
    AdapterRegistered,
    Approved,
    Artifact,
    BaseModel,
    Blob,
    CanaryAdvanced,
    CanaryRolledBack,
    CanaryStarted,
    DeliveryMode,
    Rejected,
    Rollout,
)

BASE_REVISION = "b" * 64
OTHER_REVISION = "c" * 64


def adapter(version: str = "1.0.0", domain: str = "law", base: str = BASE_REVISION, sha256: str = "") -> Adapter:
    digest = sha256 or f"{abs(hash((version, domain))) % 16**12:012x}".rjust(64, "0")
    return Adapter(
        adapter_id=f"{domain}-lora-v{version}",
        family=f"{domain}-lora",
        domain=domain,
        method="lora",
        version=version,
        base_model=BaseModel(name="tiny", revision=base),
        artifact=Artifact(
            blob=Blob(uri=f"s3://lorafleet/trainer/artifacts/{digest}", sha256=digest, bytes=10),
            rank=4,
            alpha=8,
            target_modules=("q_proj",),
        ),
    )


def registered(one: Adapter, revision: int) -> AdapterRegistered:
    return AdapterRegistered(adapter=one, revision=revision)


def activated(one: Adapter, revision: int) -> AdapterActivated:
    return AdapterActivated(adapter=one, revision=revision)


def approved(one: Adapter, revision: int, sha256: str = "") -> Approved:
    return Approved(
        adapter_id=one.adapter_id,
        family=one.family,
        domain=one.domain,
        artifact_sha256=sha256 or one.artifact.blob.sha256,
        revision=revision,
        by="policy",
    )


def rejected(one: Adapter, revision: int) -> Rejected:
    return Rejected(adapter_id=one.adapter_id, family=one.family, domain=one.domain, revision=revision, by="policy")


def deactivated(one: Adapter, revision: int) -> AdapterDeactivated:
    return AdapterDeactivated(adapter_id=one.adapter_id, family=one.family, domain=one.domain, revision=revision)


def rollout(
    candidate: Adapter, incumbent: Adapter, share: float, *, step: int = 0, mode: DeliveryMode = DeliveryMode.CANARY
) -> Rollout:
    return Rollout(
        rollout_id=f"{candidate.adapter_id}.7",
        mode=mode,
        candidate_id=candidate.adapter_id,
        incumbent_id=incumbent.adapter_id,
        step=step,
        share=share,
    )


def started(one: Adapter, incumbent: Adapter, revision: int, share: float = 0.1, **more: DeliveryMode) -> CanaryStarted:
    card = rollout(one, incumbent, share, **more)
    return CanaryStarted(family=one.family, domain=one.domain, revision=revision, rollout=card, by="policy")


def advanced(one: Adapter, incumbent: Adapter, revision: int, share: float) -> CanaryAdvanced:
    card = rollout(one, incumbent, share, step=1)
    return CanaryAdvanced(family=one.family, domain=one.domain, revision=revision, rollout=card, by="policy")


def rolled_back(one: Adapter, incumbent: Adapter, revision: int) -> CanaryRolledBack:
    card = rollout(one, incumbent, 0.1)
    return CanaryRolledBack(family=one.family, domain=one.domain, revision=revision, rollout=card, by="policy")
