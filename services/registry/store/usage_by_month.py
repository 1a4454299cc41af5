"""What callers took in each month. One SQL statement a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date

from fleet_kit.db import Connection


@dataclass(frozen=True, slots=True)
class MonthlyUsage:
    """Answers, cancelled ones included, that a caller got of a domain's adapters, or of the base model (''), and their
    tokens. `month` is its first day, in UTC."""

    month: date
    domain: str
    caller: str
    answers: int
    prompt_tokens: int
    completion_tokens: int


async def add(connection: Connection, usage: Sequence[MonthlyUsage]) -> None:
    """Add to what is counted; of one month, domain and caller there is one row in `usage`."""
    columns = zip(*map(astuple, usage), strict=True) if usage else ([] for _ in fields(MonthlyUsage))
    await connection.execute(
        """
        insert into usage_by_month
        select * from unnest($1::date[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
        on conflict (month, domain, caller) do update set
            answers = usage_by_month.answers + excluded.answers,
            prompt_tokens = usage_by_month.prompt_tokens + excluded.prompt_tokens,
            completion_tokens = usage_by_month.completion_tokens + excluded.completion_tokens
        """,
        *map(list, columns),
    )


async def of_month(
    connection: Connection, month: date, domain: str | None, reached: Sequence[str] | None, caller: str
) -> list[MonthlyUsage]:
    """What was taken in a month, most tokens first.

    Args:
        domain: of this one alone; None: of all.
        reached: domains that are shown; None: all, and the base model's answers.
        caller: whose own usage of the base model is shown, too.
    """
    rows = await connection.fetch(
        """
        select month, domain, caller, answers, prompt_tokens, completion_tokens from usage_by_month
        where month = $1 and ($2::text is null or domain = $2)
            and ($3::text[] is null or domain = any($3) or (domain = '' and caller = $4))
        order by prompt_tokens + completion_tokens desc, domain, caller
        """,
        month,
        domain,
        None if reached is None else list(reached),
        caller,
    )
    return [MonthlyUsage(*row) for row in rows]


async def drop_before(connection: Connection, month: date) -> None:
    """Forget the months before this one."""
    await connection.execute("delete from usage_by_month where month < $1", month)
