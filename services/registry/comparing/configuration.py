"""What versions are made of, under nested names, and where they differ. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from services.registry.family import Adapter

Value = str | int | float | bool | None | list[str | int | float]


def differences(adapters: Sequence[Adapter]) -> dict[str, dict[str, Value]]:
    """Name → adapter id → value, for every name on which the versions do not agree; None where one has no such name."""
    described = {adapter.adapter_id: description_of(adapter) for adapter in adapters}
    names = sorted({name for values in described.values() for name in values})
    found = {name: {adapter_id: values.get(name) for adapter_id, values in described.items()} for name in names}
    return {name: values for name, values in found.items() if len({json.dumps(one) for one in values.values()}) > 1}


def description_of(adapter: Adapter) -> dict[str, Value]:
    """Metadata and training configuration of a version, `part.name` → value. Ids and times of its own are left out."""
    submission, training, origin = adapter.submission, adapter.submission.training, adapter.submission.origin
    parts: dict[str, Mapping[str, object]] = {
        "metadata": {
            "description": submission.description,
            "domain": submission.domain,
            "golden_dataset_id": submission.golden_dataset_id,
            "method": submission.method.value,
            "registered_by": submission.by,
            "status": adapter.status.value,
        },
        "base_model": {"name": submission.base_model.name, "revision": submission.base_model.revision},
        "artifact": {
            "alpha": submission.artifact.alpha,
            "bytes": submission.artifact.blob.bytes,
            "rank": submission.artifact.rank,
            "sha256": adapter.artifact_sha256,
            "target_modules": sorted(submission.artifact.target_modules),
        },
    }
    if training is not None:
        parts["dataset"] = {"dataset_id": training.dataset.dataset_id, "samples": training.dataset.samples}
        parts["training"] = {
            "adapter_type": training.adapter_type,
            "continued_from": training.continued_from,
            "objective": training.objective,
        }
        parts["configuration"] = _configuration(training.configuration)
    if origin is not None:
        parts["origin"] = {"form": origin.form, "source": origin.source}
    return {name: value for part, values in parts.items() for name, value in _flat(part, values)}


def _configuration(text: str) -> Mapping[str, object]:
    """The canonical JSON of a training; what is no object has one name."""
    found = json.loads(text)
    return found if isinstance(found, dict) else {"value": found}


def _flat(prefix: str, values: Mapping[str, object]) -> Iterator[tuple[str, Value]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value  # type: ignore[misc]
