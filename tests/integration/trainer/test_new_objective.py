"""An objective that is added as CONTRIBUTING describes, by its own file and one row, is checked and trained."""

from pathlib import Path

import pytest

from fleet_events import v1
from services.trainer.datasets.records import Kind
from services.trainer.jobs import memory_estimate
from services.trainer.jobs.compatibility import contradictions
from services.trainer.jobs.memory_estimate import ModelSize
from services.trainer.training.configuration import Configuration
from services.trainer.training.objectives.table import OBJECTIVES, ObjectiveRow
from services.trainer.training.protocol import Finished, Stepped, Validated
from tests.integration.trainer.objectives import QUICK, completions, job, one, trained

pytestmark = [pytest.mark.integration, pytest.mark.requirement("TP-1.1")]

UNLEARNING = ObjectiveRow(
    name="unlearning",
    trainer="tests.integration.trainer.unlearning:UnlearningTrainer",
    kinds=(Kind.COMPLETION,),
    live=Kind.COMPLETION,
    hyperparameters=("ranking_margin",),
    sequences=3,
)
SIZE = ModelSize(2, 64, 128, 64, 512, 50_000, 32_768, {"model.layers.0.self_attn.q_proj": (64, 64)})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, UNLEARNING.name, UNLEARNING)


def test_a_new_objective_trains_and_validates_by_its_own_loss(tiny_model: Path, tmp_path: Path) -> None:
    configuration = Configuration(**{**QUICK.values(), "objective": "unlearning"})
    data = completions(8) + completions(2, "validation")
    messages = trained(job(tiny_model, tmp_path / "job", configuration, data))
    losses = [message.loss for message in messages if isinstance(message, Stepped)]
    assert len(losses) == configuration.max_steps
    assert losses[0] < 0, "a log-likelihood, not a cross entropy"
    assert losses[-1] < losses[0] - 0.5, "the answers have become unlikely"
    assert any(isinstance(message, Validated) for message in messages)
    assert one(Finished, messages).metrics["validation_loss"] < 0


def test_its_row_decides_which_hyperparameters_it_reads() -> None:
    def refused(objective: str) -> set[str]:
        prompt_messages = v1.TrainingRequested(
            domain="shop", hyperparameters=v1.Hyperparameters(ranking_margin=0.3, beta=0.2), objective=""
        )
        return {fault.field for fault in contradictions(prompt_messages, Configuration(objective=objective))}

    assert refused("unlearning") == {"hyperparameters.beta"}
    assert refused("ranking") == {"hyperparameters.beta"}, "two objectives may read one hyperparameter"
    assert refused("sft") == {"hyperparameters.beta", "hyperparameters.ranking_margin"}


def test_its_row_decides_how_much_memory_a_batch_takes() -> None:
    def fits(objective: str, sequences: int) -> bool:
        configuration = Configuration(objective=objective, batch_size=64, max_length=2048)
        available = memory_estimate.memory(configuration, SIZE, 64 * 2048 * sequences)
        return not memory_estimate.faults(configuration, SIZE, available)

    assert fits("unlearning", 3)
    assert not fits("unlearning", 2)
    assert fits("sft", 1)
