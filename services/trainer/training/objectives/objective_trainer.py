"""What the trainers of all objectives share: order, packed batches, what is logged, validation and the best weights."""

import math
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import BaseModel
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from services.trainer.datasets.records import Record
from services.trainer.training.batch_sampler import BatchSampler
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import IGNORED, EncodedSample, EncodedSet, Row, Tokenizer
from services.trainer.training.packing.model import install, packed_attention
from services.trainer.training.protocol import Saved, Stepped, Validated

Emit = Callable[[BaseModel], None]
"""Sends a message to the supervisor."""


class Diverged(Exception):
    """Loss or gradient is no finite number any more."""

    def __init__(self, step: int) -> None:
        super().__init__(f"hyperparameters.learning_rate: training diverged at step {step}; a lower rate is needed")


_PARTS = "parts"


def collate(samples: Sequence[EncodedSample]) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and labels, [samples, longest], padded right."""
    longest = max(len(sample.input_ids) for sample in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.long)
    mask = torch.zeros(len(samples), longest, dtype=torch.long)
    labels = torch.full((len(samples), longest), IGNORED)
    for at, sample in enumerate(samples):
        length = len(sample.input_ids)
        ids[at, :length] = torch.tensor(sample.input_ids)
        mask[at, :length] = 1
        labels[at, :length] = torch.tensor(sample.labels)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class ObjectiveTrainer(Trainer, ABC):
    """A transformers trainer of one objective; its subclasses define what is encoded and how a batch is scored.

    Everything that decides a step is a function of configuration, data and checkpoint; so another process continues
    exactly where this one stopped.
    """

    emit: Emit
    rows: Sequence[Row]
    held_out: Sequence[Row]
    configuration: Configuration
    padded: str
    """Why rows are padded instead of packed; empty where they are packed."""
    best: dict[str, torch.Tensor] | None = None
    """Adapter weights with the lowest validation loss, once there was a validation."""
    _saved_at: int = -1
    _since: float = 0.0
    _step_tokens: int = 0

    @staticmethod
    @abstractmethod
    def encoded(tokenizer: Tokenizer, records: Sequence[Record], configuration: Configuration) -> EncodedSet:
        """What is trained of each record, as token ids.

        Raises:
            UnfitTokenizer, UnfitRecord: the model's template cannot render the records.
        """

    @staticmethod
    @abstractmethod
    def collated(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """A batch of rows as tensors [samples, longest], see `collate`."""

    @classmethod
    def create(
        cls,
        model: Any,
        adapter: LoraConfig | None,
        common: dict[str, Any],
        configuration: Configuration,  # noqa: ARG003 - for those that have arguments of their own
        **given: Any,
    ) -> Self:
        """A trainer of the model with a new adapter, or of one that has an adapter already.

        Args:
            model: a transformers causal LM, or a PeftModel where `adapter` is None.
            adapter: what is added to it.
            common: arguments that all objectives share, to which an objective adds its own of the configuration.
            configuration: what is trained with.
            given: further arguments of the transformers trainer.
        """
        adapted = get_peft_model(model, adapter) if adapter else model
        return cls(adapted, args=TrainingArguments(**common), data_collator=cls.collated, **given)

    def begin_with(
        self, rows: Sequence[Row], held_out: Sequence[Row], configuration: Configuration, emit: Emit
    ) -> None:
        """What the objective's trainer could not be made with. Called once, before training."""
        self.rows, self.held_out = rows, held_out
        self.configuration, self.emit = configuration, emit
        self.padded = install(cast("PreTrainedModel", self.trained.get_base_model()))
        self.add_callback(_Clock(self))

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # TRL would render and tokenise it; rows are encoded already

    def get_train_dataloader(self) -> DataLoader[Row]:
        """This process's part of the batches; accelerate's own division would train rows twice."""
        part = BatchSampler(
            _lengths(self.rows),
            self.configuration.batch_size,
            self.args.seed,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        return _Loader(self.rows, part, self._parted)

    def _parted(self, rows: Sequence[Row]) -> dict[str, Any]:
        """A batch in the parts that are computed at once, of even size."""
        count = math.ceil(len(rows) / (self.configuration.micro_batch_size or len(rows)))
        bounds = [len(rows) * at // count for at in range(count + 1)]
        return {_PARTS: [self.collated(rows[start:end]) for start, end in pairwise(bounds)]}

    @abstractmethod
    def weight(self, part: dict[str, Any]) -> torch.Tensor:
        """What a part counts in the mean of its batch: the number of its tokens or rows that have a loss."""

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """The weight of a step's batch over all its parts and processes."""
        own = torch.stack([self.weight(part) for batch in batch_samples for part in batch[_PARTS]]).sum().float()
        everyone: torch.Tensor = self.accelerator.reduce(own.to(device))
        return everyone

    def share(self, total: torch.Tensor, whole: torch.Tensor | int | None) -> torch.Tensor:
        """What a part's sum of losses adds to the mean over a batch of this weight: parts add up, processes average."""
        assert whole is not None, "every batch is weighed"
        shared: torch.Tensor = total * (self.accelerator.num_processes / whole)
        return shared

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002
        """transformers' estimate looks for the ids of a whole batch; nothing reads it."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002
        """One message per optimizer step; the closing summary of transformers is left out."""
        if "grad_norm" not in logs:
            return
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["grad_norm"])):
            raise Diverged(self.state.global_step)
        now = time.monotonic()
        self.emit(
            Stepped(
                step=self.state.global_step,
                epoch=self.state.epoch or 0.0,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                gradient_norm=float(logs["grad_norm"]),
                tokens=self._step_tokens,
                seconds=now - self._since,
                peak_memory_bytes=peak_memory(),
            )
        )
        self._since, self._step_tokens = now, 0
        for mode in getattr(self, "_metrics", {}).values():
            mode.clear()  # TRL's trainers collect means for a log that is not theirs

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any, **named: Any) -> torch.Tensor:
        """Forward and backward of one batch, part by part; the gradients of the parts add up.

        A backward pass with gradient checkpointing computes layers again, and has to attend as the forward pass did.
        """
        *parts, last = inputs[_PARTS]
        self._step_tokens += sum(int(part["attention_mask"].sum()) for part in (*parts, last))
        losses: list[torch.Tensor] = []
        with nullcontext() if self.padded else packed_attention(self.trained.get_base_model()):
            for part in parts:
                with self.accelerator.no_sync(model):  # processes average what has added up, once
                    losses.append(super().training_step(model, part, *rest, **named))
            losses.append(super().training_step(model, last, *rest, **named))
        return torch.stack(losses).sum()

    @abstractmethod
    def measure(self, inputs: dict[str, Any]) -> tuple[float, float, dict[str, float]]:
        """Of a collated batch, without training: sum of losses, their number, sums of metrics over the same number."""

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validate: one message, the best weights kept, and a checkpoint wherever they are better than before.

        Returns:
            eval_loss and the objective's own metrics.
        """
        began = time.monotonic()
        loss, metrics = self._validate()
        best = self.state.best_metric is None or loss < self.state.best_metric
        if best:
            self.best = adapter_weights(self.trained)
        values = {"eval_loss": loss, **metrics}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        if best:
            # A worker that takes over needs these weights, also when nothing comes after them.
            self.control.should_save = True
        self.emit(
            Validated(
                step=self.state.global_step,
                epoch=self.state.epoch or 0.0,
                loss=loss,
                seconds=time.monotonic() - began,
                best=best,
                metrics=metrics,
            )
        )
        self._since += time.monotonic() - began  # validation is no part of the next step
        return values

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self._saved_at != self.state.global_step:  # its first folder may be on its way to the object store
            self._saved_at = self.state.global_step
            super()._save_checkpoint(model, trial)
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            self.emit(Saved(step=self.state.global_step, epoch=self.state.epoch or 0.0, folder=folder))

    def measured(self) -> tuple[float, dict[str, float]]:
        """Loss and metrics on the validation rows with the weights as they are."""
        return self._validate()

    def _validate(self) -> tuple[float, dict[str, float]]:
        total, weight, sums = 0.0, 0.0, dict[str, float]()
        model = self.trained
        model.eval()
        try:
            with torch.no_grad():
                for batch in self._held_out_batches():
                    loss, over, metrics = self.measure(self._prepare_inputs(self.collated(batch)))
                    total, weight = total + loss, weight + over
                    for name, value in metrics.items():
                        sums[name] = sums.get(name, 0.0) + value
        finally:
            model.train()
        return total / weight, {name: value / weight for name, value in sums.items()}

    def _held_out_batches(self) -> Iterator[list[Row]]:
        size = self.configuration.micro_batch_size or self.configuration.batch_size
        lengths = _lengths(self.held_out)
        order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
        for start in range(0, len(order), size):
            yield [self.held_out[index] for index in order[start : start + size]]

    @property
    def trained(self) -> PeftModel:
        """The model with its adapter, without what wraps it for several processes."""
        model: PeftModel = self.accelerator.unwrap_model(self.model)
        return model


def _lengths(rows: Sequence[Row]) -> list[int]:
    return [sum(len(sample.input_ids) for sample in row) for row in rows]


class _Loader(DataLoader[Row]):
    """Collated batches; transformers sets its epoch."""

    def __init__(
        self, rows: Sequence[Row], batches: BatchSampler, collated: Callable[[Sequence[Row]], dict[str, Any]]
    ) -> None:
        super().__init__(cast("Dataset[Row]", rows), batch_sampler=batches, collate_fn=collated)
        self._batches = batches

    def set_epoch(self, epoch: int) -> None:
        self._batches.set_epoch(epoch)


class _Clock(TrainerCallback):
    """Starts the first step's time when training really begins."""

    def __init__(self, trainer: ObjectiveTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: object, **__: object) -> None:
        self._trainer._since = time.monotonic()


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of the trained adapter's weights, by the names PEFT saves them under."""
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model, adapter_name="default")
    return {name: value.detach().clone() for name, value in state.items()}


def load_weights(model: Any, weights: dict[str, torch.Tensor] | Path) -> None:
    """Put saved weights (or those of a checkpoint folder) into the model's adapter."""
    state = load_file(weights / "adapter_model.safetensors") if isinstance(weights, Path) else weights
    set_peft_model_state_dict(model, state, adapter_name="default")


def peak_memory() -> int:
    """Bytes that this process had resident at its highest."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024
