"""Pausing inside transformers' Trainer: whoever resumes meets the very events and weights of an undisturbed run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from services.trainer.training.pause import PauseOnRequest
from services.trainer.training.protocol import ask_to_pause, pause_wanted

pytestmark = pytest.mark.unit

STEPS = 9  # three epochs of three steps


class Points(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor([float(index)]), "labels": torch.tensor([2.0 * index])}


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.layer(x)
        return {"loss": ((found - labels) ** 2).mean(), "logits": found}


@dataclass
class Watch(TrainerCallback):
    """Notes what happens at which step, and asks for a pause during one of them."""

    work: Path
    pause_at: int | None = None
    validated: list[int] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step + 1 == self.pause_at:
            ask_to_pause(self.work)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.validated.append(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved.append(state.global_step)


def train(
    out: Path, work: Path, watch: Watch, validate: tuple[str, int], save: tuple[str, int], resume: str | None = None
) -> tuple[dict[str, torch.Tensor], PauseOnRequest]:
    work.mkdir(exist_ok=True)
    pausing = PauseOnRequest(work)
    trainer = Trainer(
        model=Line(),
        args=TrainingArguments(
            output_dir=str(out),
            per_device_train_batch_size=2,
            num_train_epochs=3,
            learning_rate=0.01,
            eval_strategy=validate[0],
            eval_steps=validate[1],
            save_strategy=save[0],
            save_steps=save[1],
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Points(),
        eval_dataset=Points(),
        callbacks=[watch, pausing],
    )
    trainer.train(resume_from_checkpoint=resume)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}, pausing


@pytest.mark.requirement("TP-1.3")
@pytest.mark.parametrize(
    ("validate", "save"),
    [
        (("epoch", 1), ("epoch", 1)),
        (("steps", 2), ("steps", 2)),
        (("epoch", 1), ("steps", 3)),
        (("no", 1), ("steps", 1)),
    ],
)
@pytest.mark.parametrize("pause_at", [2, *(pytest.param(step, marks=pytest.mark.heavy) for step in (1, 3, 4, 9))])
def test_a_paused_and_resumed_run_validates_at_the_same_steps_and_ends_in_the_same_weights(
    validate: tuple[str, int], save: tuple[str, int], pause_at: int, tmp_path: Path
) -> None:
    straight = Watch(tmp_path / "one")
    wanted, undisturbed = train(tmp_path / "out", tmp_path / "one", straight, validate, save)
    assert not undisturbed.paused

    first = Watch(tmp_path / "two", pause_at)
    weights, pausing = train(tmp_path / "paused", tmp_path / "two", first, validate, save)
    if pause_at == STEPS:
        assert not pausing.paused, "a training that ends with this step is let end"
        assert first.validated == straight.validated
        return
    assert pausing.paused
    assert pausing.step in (pause_at, pause_at + 1)
    assert first.saved[-1] == pausing.step
    assert len(set(first.saved)) == len(first.saved), "no checkpoint is written twice"
    second = Watch(tmp_path / "three")
    weights, _ = train(
        tmp_path / "paused",
        tmp_path / "three",
        second,
        validate,
        save,
        resume=str(tmp_path / "paused" / f"checkpoint-{pausing.step}"),
    )
    assert first.validated + second.validated == straight.validated
    assert {*first.saved, *second.saved} == {*straight.saved, pausing.step}
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def test_a_pause_is_wanted_once_it_was_asked_for(tmp_path: Path) -> None:
    assert not pause_wanted(tmp_path)
    ask_to_pause(tmp_path)
    ask_to_pause(tmp_path)
    assert pause_wanted(tmp_path)
