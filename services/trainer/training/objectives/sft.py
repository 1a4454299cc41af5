"""Supervised fine-tuning: the likelihood of the wanted completions, by TRL's SFTTrainer on packed batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from peft import LoraConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from services.trainer.datasets.records import Kind, Record
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import IGNORED, WANTED_FROM, EncodedSet, Row, Tokenizer, encode_all
from services.trainer.training.objectives.objective_trainer import ObjectiveTrainer, collate


class CompletionTrainer(ObjectiveTrainer, SFTTrainer):
    """Mean cross entropy over the completion tokens of the whole batch."""

    @staticmethod
    def encoded(tokenizer: Tokenizer, records: Sequence[Record], configuration: Configuration) -> EncodedSet:
        """The first answer of each record that is wanted; of a conversation every trained one."""
        wanted = [record for record in records if not _is_unwanted(record)]
        rows = encode_all(tokenizer, wanted, configuration.max_length)
        return replace(rows, unwanted=len(records) - len(wanted))

    @staticmethod
    def collated(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """One row a record."""
        return collate([row[0] for row in rows])

    @classmethod
    def create(
        cls,
        model: Any,
        adapter: LoraConfig | None,
        common: dict[str, Any],
        configuration: Configuration,  # noqa: ARG003 - it has no arguments of its own
        **given: Any,
    ) -> Self:
        """TRL adds the adapter. Nothing is cut, for over-long records were left out and counted."""
        args = SFTConfig(**common, max_length=None, packing=False, dataset_kwargs={"skip_prepare_dataset": True})
        return cls(model, args=args, data_collator=cls.collated, peft_config=adapter, **given)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002 - nothing reads outputs
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """A part's share of the loss; `num_items_in_batch` is the batch's weight."""
        scored = model(**inputs, fused_lm_head=True)
        return self.share(-scored.log_probs.sum(), num_items_in_batch)

    def weight(self, part: dict[str, Any]) -> torch.Tensor:
        """Completion tokens."""
        weight: torch.Tensor = (part["labels"][:, 1:] != IGNORED).sum()
        return weight

    def measure(self, inputs: dict[str, Any]) -> tuple[float, float, dict[str, float]]:
        """Cross entropy per completion token, and the share of them that are the likeliest."""
        scored = self.trained(**inputs, fused_lm_head=True)
        return (
            -float(scored.log_probs.sum()),
            float(scored.label_mask.sum()),
            {"token_accuracy": float((scored.is_top1 & scored.label_mask).sum())},
        )


def _is_unwanted(record: Record) -> bool:
    """Whether an answer was rated as one not to give, such as those that TRL's KTO labels false."""
    return record.kind is Kind.RATED and record.rating is not None and record.rating < WANTED_FROM
