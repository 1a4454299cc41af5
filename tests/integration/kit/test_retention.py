"""Tables of the kit hold what their newest days wrote, however many events have passed."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from fleet_events import v1
from fleet_events.topology import row_of
from fleet_kit import retention
from fleet_kit.db import Connection, connect_pool
from fleet_kit.settings import ServiceSettings

pytestmark = pytest.mark.integration

YEAR = timedelta(days=365)

KEPT = {
    "outbox": retention.KEEP_PUBLISHED,
    "inbox": retention.inbox_horizon(row_of(v1.GenerationCompleted).keep or YEAR),
    "attempts": retention.KEEP_ATTEMPTS,
    "lease": retention.KEEP_LEASE,
}

EVENTS = "(select n, now() - interval '365 days' * n / $1 as at from generate_series(1, $1::bigint) as n) as event"
WRITTEN = (
    "insert into outbox (event_id, subject, entity, headers, body, created_at, published_at, stream, sequence)"
    " select n, 'lorafleet.v1.adapter.rejected', n % 1000, '{}', convert_to(repeat('x', 500), 'UTF8'), at, at,"
    f" 'LORAFLEET', n from {EVENTS}",
    "insert into inbox (consumer, event_id, source, handled_at)"
    f" select 'registry-serving_generation_completed', n, 'lorafleet/inference', at from {EVENTS}",
    # As if each had been started and never answered, and each had been long work.
    "insert into attempts (consumer, message, holder, started_at)"
    f" select 'registry-training_completed', n, 'h', at from {EVENTS}",
    f"insert into lease (name, holder, token, expires_at) select 'job-' || n, 'h', 1, at from {EVENTS}",
)


async def write_a_year(connection: Connection, events: int) -> None:
    """That many events, evenly over the last year, each with a row in every table of the kit."""
    await connection.execute("truncate outbox, inbox, attempts, lease")
    for statement in WRITTEN:
        await connection.execute(statement, events, timeout=600)


@pytest.mark.parametrize(
    "events", [20_000, pytest.param(1_000_000, marks=(pytest.mark.heavy, pytest.mark.timeout(1800)))]
)
async def test_a_year_of_events_leaves_the_rows_of_its_newest_days_only(
    settings_of: Callable[..., ServiceSettings], capsys: pytest.CaptureFixture[str], events: int
) -> None:
    async with connect_pool("registry", settings_of("registry").database_url or "", 1) as pool, pool.acquire() as one:
        await write_a_year(one, events)
        passes = 1
        while await retention.sweep(one, "registry"):
            passes += 1
        # More than one batch a table is never deleted in a pass.
        assert passes >= events * (1 - KEPT["outbox"] / YEAR) // retention.BATCH
        left, sizes = {}, {}
        for table in KEPT:
            await one.execute(f"vacuum full {table}", timeout=600)
            left[table] = await one.fetchval(f"select count(*) from {table}")
            sizes[table] = await one.fetchval("select pg_total_relation_size($1::text::regclass)", table)
    with capsys.disabled():
        for table, rows in left.items():
            print(f"\n{table}: {rows} of {events} rows left, {sizes[table] / 1e6:.1f} MB", end="")
        print(f"; {passes} passes")
    for table, keep in KEPT.items():
        # Some minutes pass beside the year.
        assert 0.95 * events * (keep / YEAR) - 1 <= left[table] <= events * (keep / YEAR), table
