"""Further forms of an adapter: claims are verified, and the manifest names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleet_events import v1
from lora_core import LoRACard, LoRAFormat, LoRAWeights
from lora_core.manifest import AdapterManifest
from services.registry import exports
from services.registry.checkpoint import CannotServe
from services.registry.family import Adapter
from services.registry.manifest import Manifest
from services.registry.version import FIRST
from tests.unit.registry.builders import START, blob, digest, submission, training

pytestmark = pytest.mark.unit


def export(kind: str = "int8", **changes: object) -> v1.Export:
    measured = {"same_token": 0.99, "quality_threshold": 0.98, "validation_loss": 1.5, "fit": True, **changes}
    return v1.Export(kind=kind, blob=blob(kind), **measured)


def card(seed: int = 0, rank: int = 4, alpha: float = 8.0, module: str = "layers.0.q_proj") -> LoRACard:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((rank, 64), np.float32), rng.standard_normal((32, rank), np.float32)
    return LoRACard("test", rank, alpha, ("q_proj",), {module: LoRAWeights(a, b)})


@pytest.mark.requirement("AS-2.3")
@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"same_token": 0.97}, "0.97"),
        ({"same_token": None}, "without a measured agreement"),
        ({"quality_threshold": None}, "without a measured agreement"),
    ],
)
def test_a_form_that_is_called_fit_without_reaching_its_threshold_is_refused(
    claim: dict[str, object], message: str
) -> None:
    with pytest.raises(CannotServe, match=message) as refused:
        exports.check_claims([export(), export("int4", **claim)])
    assert refused.value.field == "exports.1.fit"
    with pytest.raises(CannotServe, match=message):
        exports.check_claims([export("gguf-q4_k_m", **claim)])
    exports.check_claims([export(), export("int4", **claim, fit=False), export("gguf", quality_threshold=None)])


@pytest.mark.requirement("AS-2.3")
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (card(module="layers.1.q_proj"), "present in only one of them"),
        (card(rank=2, alpha=4.0), "other shapes"),
        (card(alpha=16.0), "another scaling"),
    ],
)
def test_a_form_of_another_adapter_is_refused(tmp_path: Path, other: LoRACard, message: str) -> None:
    LoRAFormat.save(card(), tmp_path / "artifact")
    LoRAFormat.save(card(), tmp_path / "own", "int4")
    LoRAFormat.save(other, tmp_path / "other", "int8")
    exports.check_arrow("exports.0.blob", tmp_path / "own", tmp_path / "artifact")
    with pytest.raises(CannotServe, match=message) as refused:
        exports.check_arrow("exports.2.blob", tmp_path / "other", tmp_path / "artifact")
    assert refused.value.field == "exports.2.blob"


@pytest.mark.requirement("AS-1.2")
@pytest.mark.requirement("AS-2.3")
def test_the_manifest_says_what_the_version_is_and_which_forms_it_has() -> None:
    forms = (export(), export("int4", same_token=0.5, fit=False))
    trained = replace(training("job-1", loss=1.25), adapter_type="intent-classifier", exports=forms)
    adapter = Adapter("tax-law-lora-v1.0.0", FIRST, replace(submission(), training=trained), registered_at=START)
    manifest = Manifest.of(adapter)
    assert manifest.model_dump(exclude={"variants", "base_model_revision"}) == {
        "name": "tax-law-lora",
        "version": "1.0.0",
        "base_model": "SmolLM2-135M-Instruct",
        "specialized_for": ("intent-classifier", "tax-law"),
        "training_data_size": 150,
        "performance_metrics": {"train_loss": 0.4, "eval_loss": 1.25},
        "file_size": 7,
        "creation_date": START,
        "adapter_id": "tax-law-lora-v1.0.0",
        "artifact_sha256": digest("first"),
    }
    assert [(one.kind, one.fit, one.same_token) for one in manifest.variants] == [
        ("int8", True, 0.99),
        ("int4", False, 0.5),
    ]
    assert set(AdapterManifest.model_fields) <= set(Manifest.model_fields)


def test_the_manifest_of_an_uploaded_adapter_leaves_out_what_is_unknown() -> None:
    adapter = Adapter("tax-law-lora-v1.0.0", FIRST, replace(submission(), training=None), registered_at=START)
    manifest = Manifest.of(adapter)
    assert (manifest.training_data_size, manifest.variants, manifest.specialized_for) == (None, [], ("tax-law",))
    assert manifest.creation_date == START
