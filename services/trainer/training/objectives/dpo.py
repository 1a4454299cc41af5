"""Direct preference optimisation (https://arxiv.org/abs/2305.18290): TRL's DPOTrainer on packed batches.

A prompt is computed once for its two completions, in the trained model and in the reference.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from peft import LoraConfig
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from services.trainer.datasets.rankings import ranked
from services.trainer.datasets.records import Record
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import IGNORED, EncodedSet, Row, Tokenizer, encode_all
from services.trainer.training.objectives.objective_trainer import ObjectiveTrainer, collate


class PreferenceTrainer(ObjectiveTrainer, DPOTrainer):
    """The reference is the base model, or the adapter as it was where one is continued."""

    @staticmethod
    def encoded(tokenizer: Tokenizer, records: Sequence[Record], configuration: Configuration) -> EncodedSet:
        """Pairs of answers, the better one first."""
        return encode_all(tokenizer, _pairs(ranked(records)), configuration.max_length, answers=2)

    @staticmethod
    def collated(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """All chosen completions, then all rejected ones, as TRL reads them."""
        batch = collate([chosen for chosen, _ in rows] + [rejected for _, rejected in rows])
        labels = batch.pop("labels")
        return {**batch, "completion_mask": (labels != IGNORED).long()}

    @classmethod
    def create(
        cls, model: Any, adapter: LoraConfig | None, common: dict[str, Any], configuration: Configuration, **given: Any
    ) -> Self:
        """TRL adds the adapter. Loss `sigmoid+sft` adds the likelihood of the chosen completion, lest it fall."""
        args = DPOConfig(
            **common,
            max_length=None,
            beta=configuration.beta,
            loss_type=configuration.preference_loss.split("+"),
            label_smoothing=configuration.label_smoothing,
            disable_dropout=False,
        )
        return cls(model, args=args, data_collator=cls.collated, peft_config=adapter, **given)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002 - nothing reads outputs
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """A part's share of the configured loss per pair; `num_items_in_batch` is the batch's weight."""
        with _ungathered(self.accelerator):
            loss: torch.Tensor = super().compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        return self.share(loss * self.weight(inputs), num_items_in_batch)

    def weight(self, part: dict[str, Any]) -> torch.Tensor:
        """Pairs."""
        return torch.tensor(len(part["input_ids"]) // 2)

    def measure(self, inputs: dict[str, Any]) -> tuple[float, float, dict[str, float]]:
        """The loss per pair, and two accuracies.

        `reward_accuracy`: pairs whose chosen completion gained more over the reference than the rejected one.
        `preference_accuracy`: pairs whose chosen completion is the likelier one per token.
        """
        pairs = len(inputs["input_ids"]) // 2
        loss = float(self._compute_loss(self.trained, dict(inputs), return_outputs=False))  # type: ignore[no-untyped-call]
        rewards = self._metrics["eval"]["rewards/accuracies"][-1]
        mask = inputs["completion_mask"]
        labels = inputs["input_ids"].masked_fill(mask == 0, IGNORED)
        scored = self.trained(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels, fused_lm_head=True
        )
        chosen, rejected = (scored.log_probs.sum(1) / scored.label_mask.sum(1)).chunk(2)
        return (
            loss * pairs,
            float(pairs),
            {"reward_accuracy": rewards * pairs, "preference_accuracy": float((chosen > rejected).sum())},
        )


@contextmanager
def _ungathered(accelerator: Any) -> Iterator[None]:
    """TRL gathers a dozen unused metrics per step, and in doing so wants as many pairs everywhere."""
    usual = accelerator.gather, accelerator.gather_for_metrics
    accelerator.gather = accelerator.gather_for_metrics = lambda values: values
    try:
        yield
    finally:
        accelerator.gather, accelerator.gather_for_metrics = usual


def _pairs(records: Iterable[Record]) -> list[Record]:
    """Each record as its best completion against every other."""
    return [
        replace(record, completions=(record.completions[0], other))
        for record in records
        for other in record.completions[1:]
    ]
