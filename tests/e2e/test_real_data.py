"""What a training reaches on real utterances, where clinc150 is at hand (LORAFLEET_CLINC150 names its folder)."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.clinc import DATA, Clinc, data_folder
from benchmarks.training_proof import classify, exact_match, train
from lora_core import ArrowEngine
from services.trainer.training.configuration import Configuration

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.mark.requirement("TP-1.1")
def test_an_intent_classifier_for_one_domain_is_right_on_its_test_utterances(base_model: Path, tmp_path: Path) -> None:
    folder = data_folder()
    if folder is None:
        pytest.skip(f"{DATA} names no folder with data_full.json")
    clinc = Clinc.read(folder)
    configuration = Configuration(learning_rate=1e-3, epochs=1.2, batch_size=16, max_length=128)
    made = train(base_model, tmp_path / "classifier", classify(clinc.train), configuration)
    engine = ArrowEngine.open(base_model, slots=1, max_rank=configuration.rank)
    engine.load(made.card, "classifier")
    assert len(clinc.test) == 450
    assert made.seconds < 360
    assert exact_match(engine, clinc.test, "classifier") >= 0.97
    assert exact_match(engine, clinc.test, None) < 0.1
