"""Hyperparameters that do not go together."""

from typing import Any

import pytest

from fleet_events import v1
from services.trainer.jobs.compatibility import asks_for_size, contradictions, unvalidated
from services.trainer.jobs.continuation import Continuation
from services.trainer.training.configuration import resolve
from services.trainer.training.objectives.table import OBJECTIVES

pytestmark = [pytest.mark.unit, pytest.mark.requirement("TP-1.2")]

BLOB = v1.Blob(uri="s3://lorafleet/trainer/checkpoints/a", sha256="a" * 64, bytes=1)
EARLIER = Continuation("shop-lora-v1.0.0", "job-0", BLOB, BLOB, "dora", 8, 16.0, ("q_proj", "v_proj"), 10)


def request(objective: str = "", method: str = "", **hyperparameters: Any) -> v1.TrainingRequested:
    given = v1.Hyperparameters.model_validate(hyperparameters)
    return v1.TrainingRequested(domain="shop", objective=objective, method=method, hyperparameters=given)


def faults(objective: str = "", **hyperparameters: Any) -> dict[str, str]:
    job_request = request(objective, **hyperparameters)
    configuration = resolve(job_request.method, job_request.hyperparameters, job_request.objective)
    return {one.field.rpartition(".")[2]: one.expected for one in contradictions(job_request, configuration)}


READERS = {name: objective.name for objective in OBJECTIVES.values() for name in objective.hyperparameters}
"""Hyperparameter → the one objective that reads it."""


@pytest.mark.parametrize("name", sorted(READERS))
def test_what_one_objective_alone_reads_is_refused_with_the_others(name: str) -> None:
    value = {"preference_loss": "ipo", "ranking_loss": "margin"}.get(name, 0.25)
    extra = {"preference_loss": "robust"} if name == "label_smoothing" else {}
    for objective in ("", "sft", "dpo", "ranking"):
        found = faults(objective, **{name: value}, **(extra if objective == "dpo" else {}))
        assert (name in found) == (objective != READERS[name]), objective
        assert all(READERS[name] in found[name] for _ in found)


def test_label_smoothing_and_margin_are_refused_where_the_loss_does_not_read_them() -> None:
    assert "robust or exo_pair" in faults("dpo", label_smoothing=0.1)["label_smoothing"]
    assert faults("dpo", label_smoothing=0.1, preference_loss="robust") == {}
    assert "0.001" in faults("dpo", preference_loss="exo_pair")["label_smoothing"]
    assert "rrhf" in faults("ranking", ranking_loss="rrhf", ranking_margin=0.1)["ranking_margin"]
    assert faults("ranking", ranking_margin=0.1) == {}


def test_processes_share_a_batch_evenly() -> None:
    assert "divisor of batch_size 8" in faults(processes=3)["processes"]
    assert "two samples of a batch" in faults(processes=8)["processes"]
    assert faults(processes=3, batch_size=9) == faults(processes=1, batch_size=1) == {}


def test_what_is_computed_at_once_is_no_more_than_a_process_has() -> None:
    assert "at most 4" in faults(processes=2, micro_batch_size=5)["micro_batch_size"]
    assert faults(processes=2, micro_batch_size=4) == faults(micro_batch_size=8) == {}


def test_early_stopping_needs_something_that_validates() -> None:
    job_request = request(early_stopping_patience=3, validation_steps=5)
    found = {one.field for one in unvalidated(job_request, split=False)}
    assert found == {"hyperparameters.early_stopping_patience", "hyperparameters.validation_steps"}
    assert not list(unvalidated(job_request, split=True))
    assert not list(unvalidated(request(early_stopping_patience=3, validation_part=0.1), split=False))
    assert not list(unvalidated(request(), split=False))


def test_memory_is_estimated_for_requests_that_give_the_size_of_batches() -> None:
    assert not asks_for_size(request(rank=4))
    assert asks_for_size(request(batch_size=4))
    assert asks_for_size(request(micro_batch_size=4))
    assert asks_for_size(request(max_length=64))


def test_a_continued_adapter_passes_on_its_shape_and_nothing_else() -> None:
    job_request = request(learning_rate=0.01)
    configuration = EARLIER.configure(job_request)
    assert (configuration.method, configuration.rank, configuration.alpha) == ("dora", 8, 16.0)
    assert configuration.target_modules == ("q_proj", "v_proj")
    assert configuration.layers == 10
    assert configuration.learning_rate == 0.01
    assert configuration.continue_from == "a" * 64
    assert EARLIER.faults(job_request) == ()
    assert (
        EARLIER.faults(request(method="dora", rank=8, alpha=16, layers=10, target_modules=["v_proj", "q_proj"])) == ()
    )


def test_another_shape_than_the_continued_adapter_has_is_refused_with_both() -> None:
    found = EARLIER.faults(request(method="lora", rank=4, alpha=4, target_modules=["k_proj"], layers=20))
    assert {one.field: one.value for one in found} == {
        "method": "lora",
        "hyperparameters.rank": 4,
        "hyperparameters.alpha": 4,
        "hyperparameters.target_modules": ("k_proj",),
        "hyperparameters.layers": 20,
    }
    assert all("shop-lora-v1.0.0" in one.expected for one in found)
    assert "8" in found[1].expected
