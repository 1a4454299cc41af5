"""A finished training becomes a submission: everything is fetched, verified and opened before anything is stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fleet_events import v1
from fleet_kit.errors import BlobCorrupt
from services.registry import checkpoint, exports
from services.registry.checkpoint import CannotServe, Contents
from services.registry.family import Submission, Training
from services.registry.parts import RegistryService
from services.registry.version import SemVer

TRAINER = "trainer"
"""Who made a version whose training has no requester."""


async def examine(event: v1.TrainingCompleted, service: RegistryService) -> Submission:
    """Verify every link that the event claims and return what to register.

    Raises CannotServe or WrongBaseModel with the field at fault, BaseModelUnavailable where the registry itself lacks
    the base model. Faults of the object store pass through.
    """
    pinned = await service.parts.base_models.check(event.base_model)
    if hashlib.sha256(event.configuration.encode()).hexdigest() != event.configuration_sha256:
        raise CannotServe("configuration_sha256", "it is not the digest of `configuration`")
    exports.check_claims(event.exports)
    with service.parts.scratch.folder() as folder:
        artifact, peft = folder / "artifact.arrow", folder / "checkpoint"
        await _fetch(service, "artifact.blob", event.artifact.blob, artifact)
        await _fetch(service, "checkpoint", event.checkpoint, peft / checkpoint.WEIGHTS)
        await _fetch(service, "checkpoint_config", event.checkpoint_config, peft / checkpoint.CONFIG)
        forms = await _fetch_forms(event, folder, service)
        models = service.parts.base_models
        contents = await models.inspector.open_artifact(artifact, peft, pinned.shapes, forms)
        models.check_rank(contents)
    _check_claims(event.artifact, contents)
    return Submission(
        domain=event.domain,
        method=event.method,
        base_model=event.base_model,
        artifact=event.artifact,
        checkpoint=event.checkpoint,
        checkpoint_config=event.checkpoint_config,
        by=event.requested_by or TRAINER,
        version=SemVer.parse(event.version) if event.version else None,
        bump=event.bump or None,
        description=event.description,
        example_prompts=event.example_prompts,
        probe=event.probe,
        routing=event.routing,
        golden_dataset_id=event.golden_dataset_id,
        auto_approve_threshold=event.auto_approve_threshold,
        training=Training(
            job_id=event.job_id,
            dataset=event.dataset,
            configuration=event.configuration,
            configuration_sha256=event.configuration_sha256,
            report=event.report,
            metrics=dict(event.metrics),
            finished_at=event.finished_at,
            objective=event.objective,
            continued_from=event.continued_from,
            adapter_type=event.adapter_type,
            report_page=event.report_page,
            model_card=event.model_card,
            exports=event.exports,
            reason=event.reason,
        ),
    )


async def _fetch_forms(event: v1.TrainingCompleted, folder: Path, service: RegistryService) -> list[tuple[str, Path]]:
    """Fetch every export, which verifies its digest; those that are opened, as (field, file)."""
    forms = []
    for index, export in enumerate(event.exports):
        field, file = f"exports.{index}.blob", folder / f"export-{index}"
        await _fetch(service, field, export.blob, file)
        if export.kind in exports.ARROW_KINDS:
            forms.append((field, file))
        else:
            file.unlink()
    return forms


async def _fetch(service: RegistryService, field: str, blob: v1.Blob, to: Path) -> None:
    limit = service.settings.max_artifact_bytes
    if blob.bytes > limit:
        raise CannotServe(f"{field}.bytes", f"{blob.bytes} bytes are over the {limit} that a registered file may have")
    try:
        await service.blobs.fetch(blob, to)
    except BlobCorrupt as error:
        raise CannotServe(f"{field}.sha256", str(error)) from error


def _check_claims(claimed: v1.Artifact, found: Contents) -> None:
    if claimed.rank != found.rank:
        raise CannotServe("artifact.rank", f"the event claims {claimed.rank}, the artifact holds {found.rank}")
    if claimed.alpha != found.alpha:
        raise CannotServe("artifact.alpha", f"the event claims {claimed.alpha:g}, the artifact holds {found.alpha:g}")
    if tuple(sorted(claimed.target_modules)) != found.target_modules:
        raise CannotServe(
            "artifact.target_modules",
            f"the event claims {sorted(claimed.target_modules)}, the artifact adapts {list(found.target_modules)}",
        )
