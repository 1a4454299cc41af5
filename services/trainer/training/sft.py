"""Supervised fine-tuning: the likelihood of the wanted completions, by TRL's SFTTrainer on packed batches."""

from collections.abc import Sequence
from typing import Any

import torch
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from services.trainer.training.encoding import Row
from services.trainer.training.loop import Loop, collate


class CompletionTrainer(Loop, SFTTrainer):
    """Mean cross entropy over the completion tokens of the whole batch."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002 - nothing reads outputs
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """`num_items_in_batch` counts the completion tokens of all processes."""
        scored = model(**inputs, fused_lm_head=True)
        count = scored.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss: torch.Tensor = -scored.log_probs.sum() / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients of processes are averaged, here they add up
        return loss

    def measure(self, inputs: dict[str, Any]) -> tuple[float, float, dict[str, float]]:
        """Cross entropy per completion token, and the share of them that are the likeliest."""
        scored = self.trained(**inputs, fused_lm_head=True)
        return (
            -float(scored.log_probs.sum()),
            float(scored.label_mask.sum()),
            {"token_accuracy": float((scored.is_top1 & scored.label_mask).sum())},
        )


def arguments(common: dict[str, Any]) -> SFTConfig:
    """TRL's arguments; nothing is cut, for over-long records were left out and counted."""
    return SFTConfig(**common, max_length=None, packing=False, dataset_kwargs={"skip_prepare_dataset": True})


def collated(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """One row a record."""
    return collate([row[0] for row in rows])
