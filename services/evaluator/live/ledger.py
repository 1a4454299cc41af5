"""What judging the live answers of a rollout costs: kept for the budget, without the texts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fleet_kit.transaction import Transaction
from services.evaluator.judging.ledger import Exchange, Spent
from services.evaluator.live import store


class LiveLedger:
    """The ledger of one answer. A budget is the rollout's; `transaction` is the event's fenced one."""

    def __init__(
        self,
        rollout_id: str,
        generation_id: str,
        transaction: Callable[[], AbstractAsyncContextManager[Transaction]],
    ) -> None:
        self._rollout_id = rollout_id
        self._generation_id = generation_id
        self._transaction = transaction

    async def recall(self, request: bytes) -> bytes | None:  # noqa: ARG002 - answers of judges quote people
        """Nothing: an answer whose judging was cut short is judged again."""
        return None

    async def keep(self, exchange: Exchange) -> None:
        """At once, so that what was paid counts however the judging ends."""
        async with self._transaction() as tx:
            await store.add_exchange(
                tx.connection,
                self._rollout_id,
                self._generation_id,
                prompt_tokens=exchange.prompt_tokens,
                answer_tokens=exchange.answer_tokens,
                cost=exchange.cost,
                seconds=exchange.seconds,
            )

    async def spent(self) -> Spent:
        async with self._transaction() as tx:
            return await store.spent(tx.connection, self._rollout_id)
