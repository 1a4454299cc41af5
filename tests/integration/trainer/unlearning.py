"""A toy objective in one file, as CONTRIBUTING describes: gradient ascent, which makes the answers of a data set unlikely."""

from collections.abc import Sequence
from typing import Any

import torch

from services.trainer.datasets.records import Record
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import IGNORED, EncodedSet, Row, Tokenizer, encode_all
from services.trainer.training.objectives.objective_trainer import ObjectiveTrainer, collate


class UnlearningTrainer(ObjectiveTrainer):
    """Mean log-likelihood over the completion tokens of the batch, which training lowers."""

    @staticmethod
    def encoded(tokenizer: Tokenizer, records: Sequence[Record], configuration: Configuration) -> EncodedSet:
        """The first answer of each record."""
        return encode_all(tokenizer, records, configuration.max_length)

    @staticmethod
    def collated(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """One row a record."""
        return collate([row[0] for row in rows])

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """A part's share of the loss; `num_items_in_batch` is the batch's weight."""
        return self.share(model(**inputs, fused_lm_head=True).log_probs.sum(), num_items_in_batch)

    def weight(self, part: dict[str, Any]) -> torch.Tensor:
        """Completion tokens."""
        weight: torch.Tensor = (part["labels"][:, 1:] != IGNORED).sum()
        return weight

    def measure(self, inputs: dict[str, Any]) -> tuple[float, float, dict[str, float]]:
        """Log-likelihood per completion token."""
        scored = self.trained(**inputs, fused_lm_head=True)
        return float(scored.log_probs.sum()), float(scored.label_mask.sum()), {}
