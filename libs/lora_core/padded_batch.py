"""`PaddedBatch`: rows that share one forward pass, and how two of them become one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from transformers import PreTrainedModel

from lora_core.kv_cache import GrowingLayer, copies_rows, new_cache
from lora_core.slots.row_plan import RowPlan


class Slots(Protocol):
    """What a padded batch needs of the engine: a plan for its rows, and a forward pass under it."""

    def plan(self, rows: Sequence[int]) -> RowPlan: ...
    def forward(self, plan: RowPlan) -> AbstractContextManager[None]: ...


class PaddedBatch:
    """Rows (by their batch's numbers) that have the same number of positions in the cache, padded on the left.

    mask: [rows, positions], 0 where a row is padded. input: [rows, tokens], what is still to be read: the prompts at
    first, then one token of each row at a time.

    prompts: of some rows may be the same; reads[i] is the prompt of row i, None: each row has the one at its place. A
    prompt is read once for all its rows, whose slots have to be the same, and its cache is then copied to each of them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        slots: Slots,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        reads: Sequence[int] | None = None,
    ) -> None:
        self._model, self._slots = model, slots
        self.rows = list(rows)
        self._cache = new_cache(model.config)
        if reads is not None and not copies_rows(self._cache):
            prompts, reads = [prompts[prompt] for prompt in reads], None
        self._reads = None if reads is None else list(reads)
        self._input, self._mask = left_padded(prompts, model.device)
        self._plan = self._plan_rows()

    @property
    def positions(self) -> int:
        """How many positions the cache holds, padding included."""
        return int(self._mask.shape[1])

    def forward(self, most: int | None = None) -> torch.Tensor | None:
        """Read what is to be read, at most `most` tokens over all rows if that is given.

        Returns the logits of the last position, [rows, vocabulary], or None while there is more to be read.
        """
        pending = self._input.shape[1]
        taken = pending if most is None else min(pending, max(1, most // len(self._input)))
        end = self._mask.shape[1] - (pending - taken)
        mask = self._mask[:, :end]
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -taken:]
        with self._slots.forward(self._plan), torch.inference_mode():
            # Without the output head where its logits are not needed yet.
            read = self._model if taken == pending else self._model.base_model
            found = read(
                input_ids=self._input[:, :taken],
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                **({"logits_to_keep": 1} if taken == pending else {}),
            )
        if taken < pending:
            self._input = self._input[:, taken:]
            return None
        logits: torch.Tensor = found.logits[:, -1]
        if self._reads is not None:
            logits = logits[self._select(self._reads)]
            self._reads = None
            self._plan = self._plan_rows()
        return logits

    def feed(self, tokens: Sequence[int]) -> None:
        """The next forward pass reads these, one for each row."""
        self._input = torch.tensor(tokens, device=self._mask.device).unsqueeze(1)
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(self.rows), 1))], dim=1)

    def keep(self, rows: Sequence[int]) -> None:
        """Take all other rows out, and with them the padding that only they needed."""
        kept = [position for position, row in enumerate(self.rows) if row in set(rows)]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[position] for position in kept]
        if not kept:
            return
        if self._reads is not None:
            reads = [self._reads[position] for position in kept]
            kept = sorted(set(reads))
            self._reads = [kept.index(prompt) for prompt in reads]
        self._select(kept)
        padding = int(self._mask.any(0).int().argmax())
        layers = self._growing()
        if padding and layers is not None and self._input.shape[1] == 1:  # else not all of it is in the cache yet
            for layer in layers:
                layer.trim(padding)
            self._mask = self._mask[:, padding:]
        self._plan = self._plan_rows()

    def absorb(self, other: "PaddedBatch") -> bool:
        """Take the rows of another padded batch in, if both have read their prompts and the model's cache allows it."""
        mine, theirs = self._growing(), other._growing()
        reading = any(one._input.shape[1] != 1 or one._reads is not None for one in (self, other))
        if mine is None or theirs is None or reading:
            return False
        positions = max(self.positions, other.positions)
        with torch.inference_mode():
            for layer, its in zip(mine, theirs, strict=True):
                layer.join(its, positions - 1)  # the last position is read by the next forward pass
        self._mask = torch.cat([_padded(self._mask, positions), _padded(other._mask, positions)])
        self._input = torch.cat([self._input, other._input])
        self.rows += other.rows
        self._plan = self._plan_rows()
        return True

    def _growing(self) -> list[GrowingLayer] | None:
        layers = [layer for layer in self._cache.layers if isinstance(layer, GrowingLayer)]
        return layers if len(layers) == len(self._cache.layers) else None

    def _select(self, places: Sequence[int]) -> torch.Tensor:
        """Have the rows at these places in the cache, in this order; a row may be there several times."""
        index = torch.tensor(places, device=self._mask.device)
        with torch.inference_mode():
            self._cache.batch_select_indices(index)
        self._input, self._mask = self._input[index], self._mask[index]
        return index

    def _plan_rows(self) -> RowPlan:
        if self._reads is None:
            return self._slots.plan(self.rows)
        return self._slots.plan([self.rows[self._reads.index(prompt)] for prompt in range(len(self._input))])


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, [rows, longest prompt]; what is masked holds token 0."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _padded(mask: torch.Tensor, positions: int) -> torch.Tensor:
    return torch.nn.functional.pad(mask, (positions - mask.shape[1], 0))
