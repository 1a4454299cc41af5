"""How a training ends: early, resumed, without its best checkpoint, or refused for its data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from services.trainer.datasets.records import Kind, Record, prompt_messages
from services.trainer.training.protocol import Began, Finished, Stepped, Validated
from tests.integration.trainer.conftest import pairs
from tests.integration.trainer.objectives import QUICK, job, one, preferences, rankings, trained
from tests.integration.trainer.test_training_process import completion, spec

pytestmark = pytest.mark.integration


@pytest.mark.requirement("TP-1.3")
def test_a_job_resumed_behind_its_last_step_gives_the_same_adapter_and_no_further_step(
    tiny_model: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    whole = trained(spec(tiny_model, tmp_path / "whole"), keep=kept)
    resumed = trained(spec(tiny_model, tmp_path / "resumed", resume_from=kept / "3"))
    assert [message.step for message in whole if isinstance(message, Stepped)] == [1, 2, 3]
    assert [message for message in resumed if isinstance(message, Stepped)] == []
    first, second = (next(m for m in messages if isinstance(m, Finished)) for messages in (whole, resumed))
    assert second.weights.read_bytes() == first.weights.read_bytes()
    assert second.probe == first.probe


@pytest.mark.requirement("TP-3.3")
def test_training_ends_when_validation_gets_no_better_and_the_best_weights_are_the_result(
    tiny_model: Path, tmp_path: Path
) -> None:
    # What validates contradicts what is trained, so that its loss rises after some steps.
    train = [completion(pair) for pair in pairs("shop", 16)]
    against = [replace(record, completions=("Nobody knows.",), split="validation") for record in train[:8]]
    configuration = replace(QUICK, max_steps=60, validation_steps=2, early_stopping_patience=2)
    kept = tmp_path / "kept"
    kept.mkdir()
    messages = trained(job(tiny_model, tmp_path / "job", configuration, [*train, *against]), keep=kept)
    validated = [message for message in messages if isinstance(message, Validated)]
    finished = one(Finished, messages)
    best = min(validated, key=lambda each: each.loss)
    assert finished.stopped_early
    assert finished.steps == validated[-1].step < 60
    assert [each.loss > best.loss for each in validated[-2:]] == [True, True]
    assert finished.best_step == best.step
    assert finished.metrics["validation_loss"] == pytest.approx(best.loss, rel=1e-4)
    assert (kept / str(best.step)).is_dir(), "the best weights are in a checkpoint of their own"
    best_weights = load_file(kept / str(best.step) / "adapter_model.safetensors")
    final = load_file(finished.weights)
    assert all((final[name] == best_weights[name]).all() for name in final)


@pytest.mark.requirement("TP-1.3")
@pytest.mark.parametrize("objective", ["dpo", pytest.param("ranking", marks=pytest.mark.heavy)])
def test_a_resumed_training_ends_with_the_very_same_bytes(tiny_model: Path, tmp_path: Path, objective: str) -> None:
    make = preferences if objective == "dpo" else rankings
    data = [*make(20), *make(6, "validation")]
    configuration = replace(
        QUICK, objective=objective, max_steps=9, validation_steps=2, checkpoint_steps=3, dropout=0.1, batch_size=4
    )
    kept = tmp_path / "kept"
    kept.mkdir()
    whole = trained(job(tiny_model, tmp_path / "whole", configuration, data), keep=kept)
    best = [message.step for message in whole if isinstance(message, Validated) and message.best and message.step <= 6]
    resumed = trained(
        job(
            tiny_model,
            tmp_path / "resumed",
            configuration,
            data,
            resume_from=kept / "6",
            best_from=kept / str(best[-1]),
        )
    )
    assert [m.step for m in resumed if isinstance(m, Stepped)] == [7, 8, 9]
    first, second = one(Finished, whole), one(Finished, resumed)
    assert second.weights.read_bytes() == first.weights.read_bytes()
    assert (second.best_step, second.metrics) == (first.best_step, first.metrics)


def test_a_job_whose_best_checkpoint_is_lost_goes_on_without_it(tiny_model: Path, tmp_path: Path) -> None:
    train = [completion(pair) for pair in pairs("shop", 16)]
    against = [replace(record, completions=("Nobody knows.",), split="validation") for record in train[:8]]
    configuration = replace(QUICK, max_steps=12, validation_steps=2, checkpoint_steps=2, learning_rate=0.05, seed=1)
    kept = tmp_path / "kept"
    kept.mkdir()
    whole = trained(job(tiny_model, tmp_path / "whole", configuration, [*train, *against]), keep=kept)
    best = one(Finished, whole).best_step
    assert best < 10, "the best weights are older than the checkpoint that is resumed"
    lost = job(tiny_model, tmp_path / "lost", configuration, [*train, *against], resume_from=kept / "10")
    finished = one(Finished, trained(lost))
    assert finished.best_step == 12
    assert finished.weights.read_bytes() == (kept / "12" / "adapter_model.safetensors").read_bytes()


def test_records_without_a_second_answer_cannot_be_ranked(tiny_model: Path, tmp_path: Path) -> None:
    from services.trainer.training.train import CannotTrain

    data = [completion(pair) for pair in pairs("shop", 4)]
    with pytest.raises(CannotTrain, match="no record to train ranking on"):
        trained(job(tiny_model, tmp_path, replace(QUICK, objective="ranking"), data))


def test_a_few_over_long_samples_are_left_out_whole_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    data = [completion(pair) for pair in pairs("shop", 23)]
    long = Record(Kind.COMPLETION, prompt_messages("Long?"), ("word " * 200,))
    messages = trained(job(tiny_model, tmp_path, replace(QUICK, max_steps=1, max_length=120), [*data, long]))
    began = one(Began, messages)
    assert (began.samples, began.too_long) == (23, 1)
    assert began.longest > 200


def test_a_part_that_holds_nothing_out_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from services.trainer.training.train import CannotTrain

    data = [completion(pair) for pair in pairs("shop", 3)]
    with pytest.raises(CannotTrain, match=r"validation_part: 0\.001"):
        trained(job(tiny_model, tmp_path, replace(QUICK, validation_part=0.001), data))


def test_the_asked_part_of_the_prompts_validates_where_the_data_has_no_split(tiny_model: Path, tmp_path: Path) -> None:
    data = [completion(pair) for pair in pairs("shop", 24)]
    data += [replace(record, completions=("Another answer.",)) for record in data]
    messages = trained(job(tiny_model, tmp_path, replace(QUICK, max_steps=1, validation_part=0.25), data))
    began = one(Began, messages)
    assert began.samples + began.validation_samples == 48
    assert 4 <= began.validation_samples <= 22
    assert began.validation_samples % 2 == 0, "both records of a prompt are on one side"
