"""The manifest of a version: its purpose, its numbers and the further forms it exists in (AS-1.2, AS-2.3)."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field

from fleet_events import v1
from services.registry.adapter_view import metrics_of
from services.registry.family import Adapter
from services.registry.view import BlobView, View


class Variant(View):
    """A further form. `fit`: whether it met its quantisation profile on the validation split."""

    kind: str = Field(description="gguf or gguf-LEVEL (llama.cpp), int8 or int4 (Arrow)")
    blob: BlobView
    fit: bool
    same_token: float | None = Field(description="Fraction of validation positions with the adapter's token, 0 to 1")
    quality_threshold: float | None = Field(description="Least same_token that its profile accepts")
    validation_loss: float | None

    @classmethod
    def of(cls, export: v1.Export) -> Self:
        return cls(
            kind=export.kind,
            blob=BlobView.model_validate(export.blob),
            fit=export.fit,
            same_token=export.same_token,
            quality_threshold=export.quality_threshold,
            validation_loss=export.validation_loss,
        )


class Manifest(View):
    """The fields of `lora_core.manifest.AdapterManifest`, and what a registry knows beside them."""

    name: str
    version: str
    base_model: str
    specialized_for: tuple[str, ...] = Field(description="Task types: the kind of its data, and its domain")
    training_data_size: int | None = Field(description="Samples trained from; null for an uploaded adapter")
    performance_metrics: dict[str, float]
    file_size: int = Field(description="Bytes of the Arrow artifact")
    creation_date: datetime
    adapter_id: str
    base_model_revision: str
    artifact_sha256: str
    variants: list[Variant]

    @classmethod
    def of(cls, adapter: Adapter) -> Self:
        submission = adapter.submission
        training = submission.training
        kinds = (training.adapter_type if training else "", submission.domain)
        return cls(
            name=submission.family,
            version=str(adapter.version),
            base_model=submission.base_model.name,
            specialized_for=tuple(dict.fromkeys(kind for kind in kinds if kind)),
            training_data_size=training.dataset.samples if training else None,
            performance_metrics=metrics_of(adapter),
            file_size=submission.artifact.blob.bytes,
            creation_date=(training.finished_at if training else None) or adapter.registered_at,
            adapter_id=adapter.adapter_id,
            base_model_revision=submission.base_model.revision,
            artifact_sha256=adapter.artifact_sha256,
            variants=[Variant.of(export) for export in training.exports] if training else [],
        )
