"""`Batch`: rows that are generated together, each with its own adapter, sampling and end."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from transformers import PreTrainedModel

from lora_core.cohort import Cohort, Slots
from lora_core.sampling import Adapters, Request, Sampler

FinishReason = Literal["stop", "length", "cancelled"]

_REMEMBERED = 65_536  # reasons of ended rows that a batch which never ends keeps


class Lease(Slots, Protocol):
    """The engine's side of a batch: the slots of its rows stay as they are until each row has ended."""

    def hold(self, rows: Sequence[int], adapters: Sequence[Adapters]) -> None: ...
    def release(self, row: int) -> None: ...


class _Row:
    """One row that has not ended."""

    def __init__(self, request: Request, default_stops: frozenset[int]) -> None:
        self.sampler = Sampler(request)
        self.stops = default_stops if request.stop_ids is None else frozenset(request.stop_ids)
        self.left = request.max_tokens


class Batch:
    """Call `step` while `alive`. Rows may join at any time and are taken out of the computation when they end.

    prefill: how many tokens of joining prompts a step reads at most while other rows are being answered.
    Used by one thread at a time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        default_stops: frozenset[int],
        lease: Lease,
        prefill: int,
    ) -> None:
        self._model, self._lease, self._default_stops, self._prefill = model, lease, default_stops, prefill
        self._next_row = 0
        self._running: dict[int, _Row] = {}
        self._finished: dict[int, FinishReason] = {}
        self._cohorts: list[Cohort] = []
        self.add(requests)

    @property
    def alive(self) -> bool:
        """Is there a row that has not ended?"""
        return bool(self._running)

    def add(self, requests: Sequence[Request]) -> range:
        """Let requests join; the next step reads their prompts. Returns their row numbers.

        Raises AdapterNotFound if one names an adapter that is not loaded; then none joins.
        """
        if not requests:
            raise ValueError("requests is empty: expected at least one")
        rows = range(self._next_row, self._next_row + len(requests))
        self._lease.hold(rows, [request.adapter for request in requests])
        self._next_row = rows.stop
        self._running |= {row: _Row(r, self._default_stops) for row, r in zip(rows, requests, strict=True)}
        self._cohorts.append(Cohort(self._model, self._lease, rows, [request.prompt_ids for request in requests]))
        return rows

    def finish_reason(self, row: int) -> FinishReason | None:
        """Why the row ended, None while it runs. The reasons of the last 65,536 ended rows are known."""
        return self._finished.get(row)

    def cancel(self, row: int) -> None:
        """End a row now; its next token is not computed. A row that has ended stays as it is."""
        self._end(row, "cancelled")

    def close(self) -> None:
        """End all rows."""
        for row in list(self._running):
            self.cancel(row)
        self._cohorts.clear()

    def step(self) -> list[tuple[int, int, float]]:
        """Compute the next token of every live row: (row, token id, log-probability), in row order.

        The steps after a row has joined read its prompt, and it draws when that is done. A row that draws one of its
        stop tokens ends without giving it out.
        """
        given: list[tuple[int, int, float]] = []
        for cohort in self._cohorts:
            cohort.keep(self._alive_in(cohort))
        live = [cohort for cohort in self._cohorts if cohort.rows]
        # A long prompt is read in pieces where others are waiting for their next token.
        most = self._prefill if len(live) > 1 else None
        for cohort in live:
            given += self._advance(cohort, most)
        self._unite()
        return sorted(given)

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        while self.alive:
            yield from self.step()

    def _advance(self, cohort: Cohort, most: int | None) -> Iterator[tuple[int, int, float]]:
        logits = cohort.forward(most)
        if logits is None:
            return
        drawn: list[int] = []
        for position, number in enumerate(cohort.rows):
            row = self._running[number]
            token, logprob = row.sampler.pick(logits[position])
            drawn.append(token)
            if token in row.stops:
                self._end(number, "stop")
                continue
            yield number, token, logprob
            row.left -= 1
            if not row.left:
                self._end(number, "length")
        cohort.feed(drawn)

    def _unite(self) -> None:
        """One forward pass for all, from the next step on. Models whose caches cannot be joined keep several."""
        for cohort in self._cohorts:
            cohort.keep(self._alive_in(cohort))
        united: list[Cohort] = []
        for cohort in self._cohorts:
            if cohort.rows and not (united and united[0].absorb(cohort)):
                united.append(cohort)
        self._cohorts = united

    def _alive_in(self, cohort: Cohort) -> list[int]:
        return [row for row in cohort.rows if row in self._running]

    def _end(self, row: int, reason: FinishReason) -> None:
        if self._running.pop(row, None) is None:
            return
        self._finished[row] = reason
        if len(self._finished) > _REMEMBERED:
            del self._finished[next(iter(self._finished))]
        self._lease.release(row)
