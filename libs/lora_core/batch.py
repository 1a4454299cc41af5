"""`Batch`: rows that are generated together, each with its own adapter, sampling and end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol

import torch
from transformers import PreTrainedModel

from lora_core.generation_settings import GenerationSettings
from lora_core.padded_batch import PaddedBatch, Slots
from lora_core.prefix_cache import BLOCK, Owner, PrefixCache
from lora_core.prefix_readers import PrefixReaders, Prompt
from lora_core.sampling import Adapters, Request, Sampler, pick_all

FinishReason = Literal["stop", "length", "cancelled", "failed"]

_MUCH_PADDING = 512  # tokens of padding that cost more than reading the weights again
_REMEMBERED = 65_536  # reasons of ended rows that a batch which never ends keeps


class Lease(Slots, Protocol):
    """The engine's side of a batch: the slots of its rows stay as they are until each row has ended."""

    @property
    def prefixes(self) -> PrefixCache | None:
        """Where beginnings of prompts are kept."""
        ...

    def owner(self, row: int) -> Owner:
        """What its adapters are by content, with their weights."""
        ...

    def hold(self, rows: Sequence[int], adapters: Sequence[Adapters]) -> None: ...
    def release(self, row: int) -> None: ...


class _Row:
    """One row that has not ended."""

    def __init__(self, request: Request, default_stops: frozenset[int], own: GenerationSettings) -> None:
        self.sampler = Sampler(request, own)
        self.stops = request.stops(default_stops)
        self.left = request.max_tokens
        self.adapter, self.scope = request.adapter, request.scope
        self.ids = list(request.prompt_ids)
        """Prompt and answer so far: from these the row can be computed again."""


class Batch:
    """Call `step` while `alive`. Rows may join at any time and are taken out of the computation when they end.

    The prompt of rows that join together with the same prompt and adapter is read once.

    A row that cannot be computed or sampled ends as "failed", and `fault` has the reason. When a forward pass of
    several rows fails, each of them is computed by itself from its tokens, so that only those fail that fail alone.

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
        self._own = GenerationSettings.of(model.generation_config)
        self._next_row = 0
        self._running: dict[int, _Row] = {}
        self._finished: dict[int, FinishReason] = {}
        self._faults: dict[int, Exception] = {}
        self._alternatives: dict[int, tuple[tuple[int, float], ...]] = {}
        self._padded: list[PaddedBatch] = []
        self._apart: list[PaddedBatch] = []
        """Rows that failed together and not alone: they are not put together again."""
        self._readers = None if lease.prefixes is None else PrefixReaders(lease.prefixes)
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
        try:
            joining = {row: _Row(r, self._default_stops, self._own) for row, r in zip(rows, requests, strict=True)}
            padded = self._admit(rows, joining)
        except BaseException:
            for row in rows:
                self._lease.release(row)
                if self._readers is not None:
                    self._readers.ended(row)
            raise
        self._next_row = rows.stop
        self._running |= joining
        self._padded += padded
        return rows

    def finish_reason(self, row: int) -> FinishReason | None:
        """Why the row ended, None while it runs. The reasons of the last 65,536 ended rows are known."""
        return self._finished.get(row)

    def fault(self, row: int) -> Exception | None:
        """What a row that "failed" failed with; read once, then forgotten."""
        return self._faults.pop(row, None)

    def alternatives(self, row: int) -> tuple[tuple[int, float], ...]:
        """(token, log-probability) of the likeliest tokens of the last step, where the row's request wants them."""
        return self._alternatives.get(row, ())

    def cancel(self, row: int) -> None:
        """End a row now; its next token is not computed. A row that has ended stays as it is."""
        self._end(row, "cancelled")

    def close(self) -> None:
        """End all rows."""
        for row in list(self._running):
            self.cancel(row)
        self._padded.clear()
        self._apart.clear()

    def step(self) -> list[tuple[int, int, float]]:
        """Compute the next token of every live row: (row, token id, log-probability), in row order.

        The steps after a row has joined read its prompt, and it draws when that is done. A row that draws one of its
        stop tokens ends without giving it out.
        """
        given: list[tuple[int, int, float]] = []
        self._alternatives.clear()
        if self._readers is not None and (due := self._readers.due()):
            self._padded += self._admit(due, self._running)
        live = self._live()
        # A long prompt is read in pieces where others are waiting for their next token.
        most = self._prefill if len(live) > 1 else None
        for padded in live:
            try:
                logits = padded.forward(most)
            except Exception as error:
                given += self._advance_each(padded, error)
            else:
                if logits is not None and self._readers is not None:
                    self._readers.keep(padded.rows, padded.numbers)
                given += self._draw(padded, logits)
        self._unite()
        return sorted(given)

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        while self.alive:
            yield from self.step()

    def _advance_each(self, failed: PaddedBatch, error: Exception) -> Iterator[tuple[int, int, float]]:
        """The step of rows whose common forward pass failed, each computed again from its tokens.

        The failed pass may have left some layers' caches with the new token and others without, so nothing of it is
        used. Rows that do not fail alone stay apart, or they would fail together at every step.
        """
        self._drop(failed)
        rows = list(failed.rows)
        if len(rows) == 1:
            self._fail(rows[0], error)
            return
        whole: list[PaddedBatch] = []
        for row in rows:
            try:
                alone = self._new_padded([row], self._running)
                logits = alone.forward()
            except Exception as fault:
                self._fail(row, fault)
            else:
                whole.append(alone)
                yield from self._draw(alone, logits)
        if len(whole) == len(rows):
            self._apart += whole
        else:
            self._padded += whole

    def _draw(self, padded: PaddedBatch, logits: torch.Tensor | None) -> Iterator[tuple[int, int, float]]:
        """One token for each row, from [rows, vocabulary]; None while its prompts are being read."""
        if logits is None:
            return
        drawn: list[int] = []
        picks = pick_all([self._running[number].sampler for number in padded.rows], logits)
        for number, pick in zip(list(padded.rows), picks, strict=True):
            row = self._running[number]
            if isinstance(pick, Exception):
                self._fail(number, pick)
                drawn.append(0)  # never read: the row is taken out before the next pass
                continue
            token, logprob = pick
            drawn.append(token)
            row.ids.append(token)
            if token in row.stops:
                self._end(number, "stop")
                continue
            if row.sampler.alternatives:
                self._alternatives[number] = row.sampler.alternatives
            yield number, token, logprob
            row.left -= 1
            if row.sampler.finished:
                self._end(number, "stop")
            elif not row.left:
                self._end(number, "length")
        padded.feed(drawn)

    def _unite(self) -> None:
        """One forward pass for all, from the next step on. Models whose caches cannot be joined keep several."""
        self._live()
        united: list[PaddedBatch] = []
        for padded in self._padded:
            try:
                absorbed = bool(united) and united[0].absorb(padded)
            except Exception:  # for want of memory, for one: both may be half joined, each row is as good as before
                rows = [*united.pop(0).rows, *padded.rows]
                self._apart += [self._new_padded([row], self._running) for row in rows]
                continue
            if not absorbed:
                united.append(padded)
        self._padded = united

    def _live(self) -> list[PaddedBatch]:
        """The padded batches that have live rows, without the others' rows."""
        for padded in [*self._padded, *self._apart]:
            rows = [row for row in padded.rows if row in self._running]
            try:
                padded.keep(rows)
            except Exception:  # its cache may be half cut
                self._drop(padded)
                self._apart += [self._new_padded([row], self._running) for row in rows]
                continue
            if not rows:
                self._drop(padded)
        return [*self._padded, *self._apart]

    def _admit(self, rows: Sequence[int], known: Mapping[int, _Row]) -> list[PaddedBatch]:
        """The rows that need not wait, together where they have about as much to read."""
        left: dict[int, int] = {}
        beginnings: dict[int, list[torch.Tensor]] = {}
        for number in rows:
            row, found = known[number], None
            left[number] = len(row.ids)
            if self._readers is not None and row.scope is not None and len(row.ids) > BLOCK:
                found = self._readers.admit(number, Prompt((row.scope, self._lease.owner(number)), row.ids))
                if found is None:
                    del left[number]
                    continue
            if found:
                beginnings[number] = found
                left[number] -= BLOCK * len(found)
        padding = len(left) * max(left.values(), default=0) - sum(left.values())
        alike: dict[tuple[bool, int], list[int]] = {}
        for number, tokens in left.items():
            size = tokens.bit_length() if padding > _MUCH_PADDING else 0
            alike.setdefault((number in beginnings, size), []).append(number)
        return [self._new_padded(some, known, beginnings) for some in alike.values()]

    def _new_padded(
        self,
        rows: Sequence[int],
        known: Mapping[int, _Row],
        beginnings: Mapping[int, Sequence[torch.Tensor]] | None = None,
    ) -> PaddedBatch:
        prompts: list[list[int]] = []
        begun: list[Sequence[torch.Tensor]] = []
        reads: list[int] = []
        seen: dict[tuple[object, ...], int] = {}
        for number in rows:
            row = known[number]
            # The keys of one row would be made for nothing, of prompts that may be long.
            own = row.adapter if isinstance(row.adapter, str | None) else frozenset(row.adapter.items())
            key = (own, *row.ids) if len(rows) > 1 else ()
            reads.append(seen.setdefault(key, len(prompts)))
            if reads[-1] == len(prompts):
                prompts.append(row.ids)
                begun.append((beginnings or {}).get(number, ()))
        shared = reads if len(prompts) < len(rows) else None
        return PaddedBatch(self._model, self._lease, rows, prompts, shared, beginnings=begun)

    def _drop(self, padded: PaddedBatch) -> None:
        if self._readers is not None:
            for row in padded.rows:
                self._readers.ended(row)
        for batches in (self._padded, self._apart):
            if padded in batches:
                batches.remove(padded)

    def _fail(self, row: int, fault: Exception) -> None:
        self._faults[row] = fault
        self._end(row, "failed")

    def _end(self, row: int, reason: FinishReason) -> None:
        if self._running.pop(row, None) is None:
            return
        self._finished[row] = reason
        if len(self._finished) > _REMEMBERED:
            forgotten = next(iter(self._finished))
            del self._finished[forgotten]
            self._faults.pop(forgotten, None)
        self._lease.release(row)
        if self._readers is not None:
            self._readers.ended(row)
