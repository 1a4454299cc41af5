"""What a catalogue says of an adapter comes from its card and file, and never from nowhere."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lora_core import AdapterNotFound, InvalidAdapter, LoRAFormat
from lora_core.manifest import AdapterManifest

METADATA = {
    "version": "1.2.0",
    "base_model": "SmolLM2-135M-Instruct",
    "specialized_for": "intent-classification, routing",
    "training_data_size": "360",
    "performance_metrics": '{"accuracy": 0.97}',
    "creation_date": "2026-11-21T10:00:00Z",
    "author": "someone",
}


@pytest.mark.requirement("AS-1.2")
def test_the_manifest_has_what_the_metadata_and_the_file_say(make_card, tmp_path) -> None:
    card = make_card("triage", metadata=METADATA)
    LoRAFormat.save(card, tmp_path / "triage.arrow")
    manifest = AdapterManifest.of(LoRAFormat.load(tmp_path / "triage.arrow"), tmp_path / "triage.arrow")
    assert manifest.model_dump() == {
        "name": "triage",
        "version": "1.2.0",
        "base_model": "SmolLM2-135M-Instruct",
        "specialized_for": ("intent-classification", "routing"),
        "training_data_size": 360,
        "performance_metrics": {"accuracy": 0.97},
        "file_size": (tmp_path / "triage.arrow").stat().st_size,
        "creation_date": datetime(2026, 11, 21, 10, tzinfo=UTC),
    }


@pytest.mark.requirement("AS-1.2")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "one"),
        ("version", None),
        ("base_model", None),
        ("training_data_size", "-3"),
        ("performance_metrics", "{"),
        ("performance_metrics", '{"accuracy": "good"}'),
        ("creation_date", "yesterday"),
    ],
)
def test_metadata_that_is_missing_or_wrong_is_named(make_card, tmp_path, key, value) -> None:
    metadata = {k: v for k, v in METADATA.items() if k != key} | ({key: value} if value else {})
    card = make_card(metadata=metadata)
    LoRAFormat.save(card, tmp_path / "x.arrow")
    with pytest.raises(InvalidAdapter) as error:
        AdapterManifest.of(card, tmp_path / "x.arrow")
    assert error.value.field.startswith(f"metadata.{key}")


def test_a_manifest_needs_the_file(make_card, tmp_path) -> None:
    with pytest.raises(AdapterNotFound):
        AdapterManifest.of(replace(make_card(), metadata=METADATA), tmp_path / "gone.arrow")
