"""Trainings in this process: data of every objective, and what they emit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from services.trainer.datasets.records import Kind, Record, Split, prompt_messages
from services.trainer.training.configuration import Configuration
from services.trainer.training.protocol import Saved, TrainingSpec
from tests.integration.trainer.conftest import pairs
from tests.integration.trainer.test_training_process import completion, spec, write

QUICK = Configuration(rank=4, alpha=8, batch_size=4, learning_rate=0.03, max_steps=16, seed=3)


WORDS = ("lantern", "quill", "umbra", "vesper", "willow", "ember")


def trained(job_spec: TrainingSpec, *, keep: Path | None = None) -> list[BaseModel]:
    """What a training emits. Checkpoints are moved to `keep`, as the supervisor moves them away."""
    from services.trainer.training.train import run

    messages: list[BaseModel] = []

    def emit(message: BaseModel) -> None:
        messages.append(message)
        if isinstance(message, Saved):
            if keep:
                message.folder.rename(keep / str(message.step))
            else:
                shutil.rmtree(message.folder)

    run(job_spec, emit)
    return messages


def one(kind: type[Any], messages: list[BaseModel]) -> Any:
    (found,) = [message for message in messages if isinstance(message, kind)]
    return found


def job(model: Path, work: Path, configuration: Configuration, data: list[Record], **changes: object) -> TrainingSpec:
    made = spec(model, work, configuration, **changes)
    write(made.dataset, data)
    return made


def completions(count: int, split: Split = "train") -> list[Record]:
    return [completion(pair, split) for pair in pairs("shop", count)]


def preferences(count: int, split: Split = "train") -> list[Record]:
    """Pairs in which the shorter answer is preferred."""
    return [
        Record(
            Kind.PREFERENCE,
            prompt_messages(f"{split}: which word opens gate {index}?"),
            (f"It is {WORDS[index % 6]}.", f"It is {WORDS[(index + 1) % 6]}, I think, or so they say."),
            split=split,
        )
        for index in range(count)
    ]


def rankings(count: int, split: Split = "train") -> list[Record]:
    """Lists in which an answer is the better the more certain it sounds."""
    return [
        Record(
            Kind.RANKING,
            prompt_messages(f"{split}: which word opens gate {index}?"),
            (f"Surely {WORDS[index % 6]}.", f"Perhaps {WORDS[index % 6]}.", f"No idea, {WORDS[index % 6]}?"),
            split=split,
        )
        for index in range(count)
    ]
