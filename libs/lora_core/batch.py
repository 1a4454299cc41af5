"""`Batch`: rows that are generated together, each with its own adapter, sampling and end."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from transformers import PreTrainedModel

from lora_core.kv_cache import new_cache
from lora_core.sampling import Request, Sampler
from lora_core.slots import RowPlan

FinishReason = Literal["stop", "length", "cancelled"]


class Lease(Protocol):
    """The engine's side of a batch: its slots stay as they are until the last row of them has ended."""

    def slot(self, row: int) -> int | None: ...
    def release(self, row: int) -> None: ...
    def forward(self, plan: RowPlan) -> AbstractContextManager[None]: ...


class Batch:
    """Call `step` while `alive`. Rows that end are taken out of the computation. Used by one thread at a time."""

    def __init__(
        self, model: PreTrainedModel, requests: Sequence[Request], default_stops: frozenset[int], lease: Lease
    ) -> None:
        self._model, self._lease = model, lease
        self._requests = tuple(requests)
        self._stops = [default_stops if r.stop_ids is None else frozenset(r.stop_ids) for r in requests]
        self._samplers = [Sampler(request) for request in requests]
        self._finished: list[FinishReason | None] = [None] * len(requests)
        self._lengths = [0] * len(requests)
        self._rows = list(range(len(requests)))  # rows still in the tensors, in tensor order
        self._cache = new_cache(model.config)
        self._input, self._mask = left_padded([r.prompt_ids for r in requests], model.device)
        self._plan = self._plan_rows()

    @property
    def alive(self) -> bool:
        """Is there a row that has not ended?"""
        return None in self._finished

    def finish_reason(self, row: int) -> FinishReason | None:
        """Why the row ended, None while it runs."""
        return self._finished[row]

    def cancel(self, row: int) -> None:
        """End a row now; its next token is not computed. A row that has ended stays as it is."""
        self._end(row, "cancelled")

    def close(self) -> None:
        """End all rows."""
        for row in range(len(self._requests)):
            self.cancel(row)

    def step(self) -> list[tuple[int, int, float]]:
        """Compute the next token of every live row: (row, token id, log-probability), in row order.

        The first step reads the prompts. A row that draws one of its stop tokens ends without giving it out.
        """
        self._drop_finished()
        if not self._rows:
            return []
        logits = self._forward()
        given: list[tuple[int, int, float]] = []
        drawn: list[int] = []
        for position, row in enumerate(self._rows):
            token, logprob = self._samplers[row].pick(logits[position])
            drawn.append(token)
            if token in self._stops[row]:
                self._end(row, "stop")
                continue
            given.append((row, token, logprob))
            self._lengths[row] += 1
            if self._lengths[row] >= self._requests[row].max_tokens:
                self._end(row, "length")
        self._input = torch.tensor(drawn, device=self._mask.device).unsqueeze(1)
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(self._rows), 1))], dim=1)
        return given

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        while self.alive:
            yield from self.step()

    def _forward(self) -> torch.Tensor:
        """Logits of the last position, [rows, vocabulary]."""
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -self._input.shape[1] :]
        with self._lease.forward(self._plan), torch.inference_mode():
            logits: torch.Tensor = self._model(
                input_ids=self._input,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        return logits[:, -1]

    def _end(self, row: int, reason: FinishReason) -> None:
        if self._finished[row] is None:
            self._finished[row] = reason
            self._lease.release(row)

    def _drop_finished(self) -> None:
        kept = [position for position, row in enumerate(self._rows) if self._finished[row] is None]
        if len(kept) == len(self._rows):
            return
        self._rows = [self._rows[position] for position in kept]
        if not kept:
            return
        index = torch.tensor(kept, device=self._mask.device)
        with torch.inference_mode():
            self._cache.batch_select_indices(index)
        self._input, self._mask = self._input[index], self._mask[index]
        self._plan = self._plan_rows()

    def _plan_rows(self) -> RowPlan:
        return RowPlan.of([self._lease.slot(row) for row in self._rows], self._model.device)


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, [rows, longest prompt]; what is masked holds token 0."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
