"""From records and a configuration to the objective's trainer."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import get_peft_model
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, set_seed

from lora_core.base_model import linear_shapes
from lora_core.model_class import check_tokens
from services.trainer.datasets.rankings import ranked
from services.trainer.datasets.records import Record
from services.trainer.training import adapted_model, trainer_arguments
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import EncodedSet, encode_all
from services.trainer.training.objectives import dpo, ranking, sft
from services.trainer.training.objectives.objective_trainer import Collated, Loop, Tell

_ALL = 1_000_000


def encoded(tokenizer: Any, records: Sequence[Record], configuration: Configuration) -> EncodedSet:
    """What the objective trains of each record: its first answer, pairs of answers, or all of them in their order.

    Raises:
        UnfitTokenizer: the model's template cannot render the records.
    """
    match configuration.objective:
        case "dpo":
            return encode_all(tokenizer, _pairs(ranked(records)), configuration.max_length, answers=2)
        case "ranking":
            several = [record for record in ranked(records) if len(record.completions) > 1]
            return encode_all(tokenizer, several, configuration.max_length, answers=_ALL)
        case _:
            return encode_all(tokenizer, records, configuration.max_length)


def prepare(
    tokenizer: PreTrainedTokenizerBase,
    rows: EncodedSet,
    held_out: EncodedSet,
    configuration: Configuration,
    *,
    base_model: Path,
    continue_from: Path | None,
    work: Path,
    tell: Tell,
) -> Loop:
    """A trainer that is ready to `train(resume_from_checkpoint=...)` and writes its checkpoints under `work`.

    The adapter's first weights are drawn from the configuration's seed.

    Raises:
        UnsupportedBaseModel: see `lora_core.model_class`: the files lack weights, the embedding rows for the tokens.
    """
    model: Any = adapted_model.load(base_model, configuration.method)
    check_tokens(_tokens(rows, held_out), model, tokenizer)
    set_seed(configuration.seed)
    common = trainer_arguments.common(configuration, work, len(rows.rows), validated=bool(held_out.rows))
    if continue_from:
        model, new = adapted_model.with_adapter_of(model, continue_from), None
    else:
        new = adapted_model.adapter(configuration, model, linear_shapes(base_model))
    given: dict[str, Any] = {"train_dataset": _numbered(rows), "processing_class": tokenizer}
    if held_out.rows:
        given["eval_dataset"] = _numbered(held_out)
    trainer: Loop
    collated: Collated
    match configuration.objective:
        case "dpo":
            collated = dpo.collated
            args: Any = dpo.arguments(common, configuration)
            trainer = dpo.PreferenceTrainer(model, args=args, data_collator=collated, peft_config=new, **given)
        case "ranking":
            collated = ranking.collated
            model = get_peft_model(model, new) if new else model
            trainer = ranking.RankingTrainer(model, args=ranking.arguments(common), data_collator=collated, **given)
        case _:
            collated = sft.collated
            trainer = sft.CompletionTrainer(
                model, args=sft.arguments(common), data_collator=collated, peft_config=new, **given
            )
    trainer.begin_with(rows.rows, held_out.rows, collated, configuration, tell)
    if configuration.early_stopping_patience and held_out.rows:
        trainer.add_callback(EarlyStoppingCallback(configuration.early_stopping_patience))
    return trainer


def _tokens(*sides: EncodedSet) -> set[int]:
    return {token for side in sides for row in side.rows for sample in row for token in sample.input_ids}


def _numbered(rows: EncodedSet) -> Dataset:
    """The rows' numbers as a data set: TRL takes nothing but `datasets`, whose columns would copy the tokens.

    Nobody reads it: `Loop` has the rows.
    """
    return Dataset.from_dict({"row": list(range(len(rows.rows)))})


def _pairs(records: Iterable[Record]) -> list[Record]:
    """Each record as its best completion against every other."""
    return [
        replace(record, completions=(record.completions[0], other))
        for record in records
        for other in record.completions[1:]
    ]
