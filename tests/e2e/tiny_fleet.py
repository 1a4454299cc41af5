"""Fleets with a base model of two layers, whose loops take seconds."""

from pathlib import Path

import pytest

from fleet_cli.stack.models import BASE_MODEL_NAME
from tests.integration.inference.conftest import tiny_copy


def use_tiny_model(models: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the fleets of this test serve and train a random Llama under the name of the demonstration's model."""
    folder = models / BASE_MODEL_NAME
    if not folder.exists():
        tiny_copy(folder.with_suffix(".part"), tokenizer, seed=7, intermediate_size=96).rename(folder)
    monkeypatch.setenv("LORAFLEET_MODELS", str(models))
    monkeypatch.setenv("LORAFLEET_MAX_TOKENS", "16")  # of answers under evaluation: it has no room for the default
    monkeypatch.setenv("LORAFLEET_LEASE_SECONDS", "4")
