"""Defaults by environment, and what overrides them."""

from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.inference.policies.environments import PRESETS, Preset
from services.inference.settings import InferenceSettings
from services.inference.slots.allocation import Room

REQUIRED = {
    "NATS_URL": "nats://x",
    "S3_ENDPOINT": "x",
    "S3_ACCESS_KEY": "x",
    "S3_SECRET_KEY": "x",
    "JWKS": "x",
    "BASE_MODEL": "/models/tiny",
    "CACHE_DIR": "/cache",
}
OTHER = {
    "preloading": "lazy",
    "quantisation": "none",
    "slots": 7,
    "cache_bytes": 5,
    "hot_reload": True,
    "redundancy": False,
    "monitoring": "basic",
    "log_level": "WARNING",
}


def of(monkeypatch: pytest.MonkeyPatch, **environment: str) -> InferenceSettings:
    for name, value in {**REQUIRED, **environment}.items():
        monkeypatch.setenv(f"LORAFLEET_{name}", value)
    return InferenceSettings()


@pytest.mark.requirement("AS-10.1")
@pytest.mark.parametrize("environment", PRESETS)
def test_an_environment_chooses_the_defaults(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    settings = of(monkeypatch, ENVIRONMENT=environment)
    assert {name: getattr(settings, name) for name in OTHER} == asdict(PRESETS[environment])


@pytest.mark.requirement("AS-10.1")
@pytest.mark.parametrize("name", Preset.__annotations__)
def test_each_default_is_overridden_by_its_own_setting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings = of(monkeypatch, ENVIRONMENT="production", **{name.upper(): str(OTHER[name])})
    changed = {other for other in OTHER if getattr(settings, other) != getattr(PRESETS["production"], other)}
    assert changed == {name}


@pytest.mark.requirement("AS-10.1")
def test_without_an_environment_the_defaults_are_those_of_staging(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(monkeypatch) == of(monkeypatch, ENVIRONMENT="staging")


def test_an_unknown_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="'development', 'staging' or 'production'"):
        of(monkeypatch, ENVIRONMENT="moon")


def test_more_pins_than_slots_can_bear_are_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(monkeypatch, SLOTS="3", PINNED='["a-lora", "b-lora"]').activation.pinned == {"a-lora", "b-lora"}
    with pytest.raises(ValidationError, match="Set LORAFLEET_SLOTS to 3 or more"):
        of(monkeypatch, SLOTS="2", PINNED='["a-lora", "b-lora"]')


def test_the_table_in_the_documentation_is_the_table_in_the_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    documented = {row[0].strip("`"): row[1:4] for row in rows if row[0].strip("`") in OTHER and len(row) == 5}
    for place, preset in enumerate(PRESETS.values()):
        shown = {name: cells[place] for name, cells in documented.items()}
        expected = {name: str(value).lower() for name, value in asdict(preset).items()} | {
            "cache_bytes": f"{preset.cache_bytes // 1024**3} GiB",
            "log_level": preset.log_level,
        }
        assert shown == expected


@pytest.mark.requirement("AS-4.1")
def test_slots_are_memory_for_adapters_of_the_largest_rank_which_smaller_ones_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = of(monkeypatch)
    assert settings.room(64, shared=True) == Room(128, 16 * 64)
    assert settings.room(4, shared=True) == Room(64, 16 * 4)
    assert settings.room(64, shared=False) == Room(16, 16)
