"""From encoded records and a configuration to the objective's trainer."""

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from datasets import Dataset
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, set_seed

from lora_core.base_model import linear_shapes
from lora_core.model_class import check_tokens
from services.trainer.datasets.records import Record
from services.trainer.training import adapted_model, trainer_arguments
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import EncodedSet
from services.trainer.training.objectives.objective_trainer import Emit, ObjectiveTrainer
from services.trainer.training.objectives.table import objective_named


def encoded(tokenizer: Any, records: Sequence[Record], configuration: Configuration) -> EncodedSet:
    """What the configuration's objective trains of these records; see `ObjectiveTrainer.encoded`."""
    return _trainer_class(configuration).encoded(tokenizer, records, configuration)


def prepare(
    tokenizer: PreTrainedTokenizerBase,
    rows: EncodedSet,
    held_out: EncodedSet,
    configuration: Configuration,
    *,
    base_model: Path,
    continue_from: Path | None,
    work: Path,
    emit: Emit,
) -> ObjectiveTrainer:
    """A trainer that is ready to `train(resume_from_checkpoint=...)` and writes its checkpoints under `work`.

    The adapter's first weights are drawn from the configuration's seed.

    Raises:
        UnsupportedBaseModel: see `lora_core.model_class`: the files lack weights, the embedding rows for the tokens.
    """
    model: Any = adapted_model.load(base_model, configuration.method)
    check_tokens(_tokens(rows, held_out), model, tokenizer)
    set_seed(configuration.seed)
    if configuration.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    common = trainer_arguments.common(configuration, work, len(rows.rows), validated=bool(held_out.rows))
    if continue_from:
        model, new = adapted_model.with_adapter_of(model, continue_from), None
    else:
        new = adapted_model.adapter(configuration, model, linear_shapes(base_model))
    given: dict[str, Any] = {"train_dataset": _numbered(rows), "processing_class": tokenizer}
    if held_out.rows:
        given["eval_dataset"] = _numbered(held_out)
    trainer = _trainer_class(configuration).create(model, new, common, configuration, **given)
    trainer.begin_with(rows.rows, held_out.rows, configuration, emit)
    if configuration.early_stopping_patience and held_out.rows:
        trainer.add_callback(EarlyStoppingCallback(configuration.early_stopping_patience))
    return trainer


def _trainer_class(configuration: Configuration) -> type[ObjectiveTrainer]:
    """The trainer class of the configuration's objective."""
    found: type[ObjectiveTrainer] = resolve_name(objective_named(configuration.objective).trainer)
    return found


def _tokens(*sides: EncodedSet) -> set[int]:
    return {token for side in sides for row in side.rows for sample in row for token in sample.input_ids}


def _numbered(rows: EncodedSet) -> Dataset:
    """The rows' numbers as a data set: TRL takes nothing but `datasets`, whose columns would copy the tokens.

    Nothing reads it: `ObjectiveTrainer` has the rows.
    """
    return Dataset.from_dict({"row": list(range(len(rows.rows)))})
