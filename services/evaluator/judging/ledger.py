"""The requests to a judge and its answers, kept raw: for audit and replay, for the budget, and for a resume.

Requests and answers lie in the object store by digest; PostgreSQL knows which evaluation sent which.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from fleet_kit import tasks
from fleet_kit.blobs import Blobs
from fleet_kit.errors import BlobMissing
from fleet_kit.faults import TRANSIENT
from fleet_kit.transaction import Transaction
from services.evaluator.judging import store as judge_store
from services.evaluator.judging.store import Spent
from services.evaluator.live import store as live_store

__all__ = ["Exchange", "Ledger", "Spent", "StoredLedger", "sweeping"]

log = structlog.get_logger()
SWEEP_SECONDS = 3600.0
BATCH = 500
"""Exchanges that one step of a sweep deletes."""


@dataclass(frozen=True)
class Exchange:
    """One request to a judge and its raw answer. cost is in the currency of the judge's prices."""

    request: bytes
    answer: bytes
    prompt_tokens: int
    answer_tokens: int
    cost: float
    seconds: float


class Ledger(Protocol):
    """The exchanges of one sample's judging."""

    async def recall(self, request: bytes) -> bytes | None:
        """The raw answer that this very request got before, in this evaluation."""
        ...

    async def keep(self, exchange: Exchange) -> None: ...

    async def spent(self) -> Spent:
        """By the whole evaluation, until now."""
        ...


class StoredLedger:
    """The ledger of one sample, in PostgreSQL and S3; `transaction` is the evaluation's fenced one."""

    def __init__(
        self,
        evaluation_id: str,
        sample_id: str,
        transaction: Callable[[], AbstractAsyncContextManager[Transaction]],
        blobs: Blobs,
    ) -> None:
        self._key = (evaluation_id, sample_id)
        self._transaction = transaction
        self._blobs = blobs

    async def recall(self, request: bytes) -> bytes | None:
        """An answer that has left the object store is requested again."""
        async with self._transaction() as tx:
            answer = await judge_store.answer_of(tx.connection, *self._key, hashlib.sha256(request).hexdigest())
        if answer is None:
            return None
        try:
            return await self._blobs.get(answer)
        except BlobMissing:
            return None

    async def keep(self, exchange: Exchange) -> None:
        """Content first, so that a row never points at nothing."""
        request, answer = await asyncio.gather(
            self._blobs.put("judging", exchange.request, content_type="application/json"),
            self._blobs.put("judging", exchange.answer, content_type="application/json"),
        )
        async with self._transaction() as tx:
            await judge_store.add_exchange(
                tx.connection,
                *self._key,
                request=request,
                answer=answer,
                prompt_tokens=exchange.prompt_tokens,
                answer_tokens=exchange.answer_tokens,
                cost=exchange.cost,
                seconds=exchange.seconds,
            )

    async def spent(self) -> Spent:
        async with self._transaction() as tx:
            return await judge_store.spent(tx.connection, self._key[0])


@asynccontextmanager
async def sweeping(
    transaction: Callable[[], AbstractAsyncContextManager[Transaction]], blobs: Blobs, keep: timedelta
) -> AsyncIterator[None]:
    """Delete exchanges older than `keep`, at the start and every hour, as long as the context lasts."""
    task = asyncio.create_task(_sweep_for_ever(transaction, blobs, keep))
    try:
        yield
    finally:
        await tasks.end(task)


async def _sweep_for_ever(
    transaction: Callable[[], AbstractAsyncContextManager[Transaction]], blobs: Blobs, keep: timedelta
) -> None:
    while True:
        try:
            while await sweep(transaction, blobs, keep):
                pass
            async with transaction() as tx:
                await live_store.delete_judgements(tx.connection, keep)
                await live_store.delete_exchanges(tx.connection, keep)
        except TRANSIENT as error:
            log.warning("judging_sweep_failed", reason=repr(error))
        await asyncio.sleep(SWEEP_SECONDS)


async def sweep(
    transaction: Callable[[], AbstractAsyncContextManager[Transaction]], blobs: Blobs, keep: timedelta
) -> bool:
    """Delete a batch of old exchanges, and their content where no other exchange has the same.

    Returns whether there may be more.
    """
    async with transaction() as tx:
        gone = await judge_store.delete_older(tx.connection, keep, BATCH)
        # Within the transaction: content that cannot be deleted now keeps its rows for the next sweep.
        for blob in await judge_store.unreferenced(tx.connection, gone):
            await blobs.delete(blob)
    return len(gone) >= 2 * BATCH
