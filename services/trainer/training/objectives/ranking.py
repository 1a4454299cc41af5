"""Learning an order: losses over ranked completions of one prompt, scored by their likelihood per token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from services.trainer.datasets.rankings import ranked
from services.trainer.datasets.records import Record
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import EncodedSet, Row, Tokenizer, encode_all
from services.trainer.training.objectives.objective_trainer import ObjectiveTrainer, collate


def margin_loss(scores: torch.Tensor, margin: float) -> torch.Tensor:
    """Mean hinge over all pairs of a list: a completion k places better must score k × margin more.

    scores: [completions] best first, nats per token.
    """
    better, worse = torch.triu_indices(len(scores), len(scores), 1, device=scores.device)
    wanted = margin * (worse - better)
    return functional.relu(wanted - (scores[better] - scores[worse])).mean()


def rrhf_loss(scores: torch.Tensor) -> torch.Tensor:
    """RRHF (https://arxiv.org/abs/2304.05302): a hinge per pair in the wrong order, and the best one's likelihood."""
    better, worse = torch.triu_indices(len(scores), len(scores), 1, device=scores.device)
    return functional.relu(scores[worse] - scores[better]).sum() - scores[0]


def listwise_loss(scores: torch.Tensor) -> torch.Tensor:
    """ListMLE: the negative log-likelihood of the order in a Plackett-Luce model, per place that is drawn."""
    rest = scores.flip(0).logcumsumexp(0).flip(0)
    return (rest - scores)[:-1].mean()


def kendall_tau(scores: Sequence[float]) -> float:
    """Agreement of an order with the wanted one, best first: 1 all pairs right, -1 all wrong; equal scores count 0."""
    pairs = [(scores[i], scores[j]) for i in range(len(scores)) for j in range(i + 1, len(scores))]
    return sum((a > b) - (a < b) for a, b in pairs) / len(pairs)


def pairwise_accuracy(scores: Sequence[float]) -> float:
    """Share of pairs in the wanted order, best first."""
    pairs = [(scores[i], scores[j]) for i in range(len(scores)) for j in range(i + 1, len(scores))]
    return sum(a > b for a, b in pairs) / len(pairs)


class RankingTrainer(ObjectiveTrainer):
    """Mean loss over the lists of a batch."""

    @staticmethod
    def encoded(tokenizer: Tokenizer, records: Sequence[Record], configuration: Configuration) -> EncodedSet:
        """All answers of each record that has several, in their order."""
        several = [record for record in ranked(records) if len(record.completions) > 1]
        most = max((len(record.completions) for record in several), default=0)
        return encode_all(tokenizer, several, configuration.max_length, answers=most)

    @staticmethod
    def collated(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """All completions of all lists, list by list; `sizes` counts those of each."""
        sizes = torch.tensor([len(row) for row in rows])
        return {**collate([sample for row in rows for sample in row]), "sizes": sizes}

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002 - nothing reads outputs
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """A part's share of the configured loss per list; `num_items_in_batch` is the batch's weight."""
        losses = torch.stack([self._loss(scores) for scores in _scores(model, inputs)])
        return self.share(losses.sum(), num_items_in_batch)

    def weight(self, part: dict[str, Any]) -> torch.Tensor:
        """Lists."""
        return torch.tensor(len(part["sizes"]))

    def measure(self, inputs: dict[str, Any]) -> tuple[float, float, dict[str, float]]:
        """The loss per list, Kendall's tau and the share of pairs in the right order."""
        lists = _scores(self.trained, inputs)
        values = [scores.tolist() for scores in lists]
        return (
            float(sum(self._loss(scores) for scores in lists)),
            float(len(lists)),
            {"kendall_tau": sum(map(kendall_tau, values)), "pairwise_accuracy": sum(map(pairwise_accuracy, values))},
        )

    def _loss(self, scores: torch.Tensor) -> torch.Tensor:
        match self.configuration.ranking_loss:
            case "rrhf":
                return rrhf_loss(scores)
            case "listwise":
                return listwise_loss(scores)
            case _:
                return margin_loss(scores, self.configuration.ranking_margin)


def _scores(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """Log-likelihood per completion token of every completion, a tensor a list."""
    sizes = inputs["sizes"].tolist()
    batch = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
    scored = model(**batch, fused_lm_head=True)
    return torch.split(scored.log_probs.sum(1) / scored.label_mask.sum(1), sizes)
