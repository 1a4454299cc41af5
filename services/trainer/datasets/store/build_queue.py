"""Which waiting build is next: one statement a function, connection first.

The database holds the queue. A DatasetQueued is a ticket: its receiver claims the best build that waits, which
need not be the one that the ticket was written for. `open_dataset_builds` (0107_limits.sql) lists which builds a live
worker holds.
"""

from fleet_kit.db import Connection
from fleet_kit.errors import LeaseLost
from services.trainer.datasets.build_state import DatasetBuild
from services.trainer.datasets.store.builds import build_of


async def claim(connection: Connection, lease: str, token: int, *, at_most: int) -> DatasetBuild | None:
    """Claim the next build for a ticket: of the domain that was served longest ago the oldest one.

    Args:
        lease: name of the ticket's lease, which the caller holds under `token`.
        at_most: builds of one domain that run at a time.

    Returns:
        The build, locked until the transaction ends; None when none waits, or each domain has enough running.
    """
    # One claim at a time: two at once would both count what runs before either has claimed.
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('dataset_builds', 104))")
    row = await connection.fetchrow(
        """
        with open as materialized (
            select * from open_dataset_builds
        ), turns as (
            select open.domain, (
                select max(claimed_at) from dataset_builds served where served.domain = open.domain
            ) as served_at
            from open group by open.domain
            having count(*) filter (where held) < $3 and not bool_and(held)
        ), next as (
            select waiting.build_id
            from dataset_builds waiting join open using (build_id) join turns on turns.domain = open.domain
            where not open.held
            order by turns.served_at nulls first, waiting.created_at, waiting.build_id
            limit 1
            for update of waiting skip locked
        )
        update dataset_builds set claim_lease = $1, claim_token = $2, claimed_at = clock_timestamp()
        from next where dataset_builds.build_id = next.build_id
        returning dataset_builds.*
        """,
        lease,
        token,
        at_most,
    )
    return build_of(row) if row else None


async def any_waits(connection: Connection) -> bool:
    """Whether there is a build that no live worker has."""
    return bool(await connection.fetchval("select exists (select from open_dataset_builds where not held)"))


async def held(connection: Connection, build_id: str, lease: str, token: int) -> DatasetBuild:
    """A build that this ticket has claimed, locked until the transaction ends; raises `LeaseLost` when it has not."""
    row = await connection.fetchrow(
        """
        select * from dataset_builds
        where build_id = $1 and claim_lease = $2 and claim_token = $3 and state = 'running' for update
        """,
        build_id,
        lease,
        token,
    )
    if row is None:
        raise LeaseLost(f"build {build_id} was claimed by another worker")
    return build_of(row)
