"""The long work behind a ticket: claim the next build, build it, until there is a version or a reason why not."""

import asyncio
from datetime import UTC, datetime

import structlog

from fleet_kit.errors import LeaseLost
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.trainer.datasets import build_service, build_state
from services.trainer.datasets.build_fault import BuildFault, CannotBuild
from services.trainer.datasets.build_process import BuildCrashed
from services.trainer.datasets.build_service import StoredContent
from services.trainer.datasets.build_state import MAX_ATTEMPTS, DatasetBuild
from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.store import build_queue
from services.trainer.datasets.store import builds as build_store
from services.trainer.retry import PASSING
from services.trainer.tickets import claimed

log = structlog.get_logger()

_INTERRUPTED: tuple[type[BaseException], ...] = (asyncio.CancelledError, *PASSING)
_NOT_WRITTEN: tuple[type[BaseException], ...] = (LeaseLost, *PASSING)
_LOOK_SECONDS = 0.5
_GIVE_BACK_SECONDS = 3.0


async def run_next_build(work: LeasedTask, service: DatasetContext) -> None:
    """Take the next build to its end. A worker that takes one over builds it from the start: nothing is half-written.

    A ticket that finds no build waiting is spare: another ticket has built the one that it was written for.

    Raises:
        LeaseLost: another worker has the ticket, or the build.
        what passes by itself (see fleet_kit.settle): the build waits again, and the ticket comes again.
    """
    async with service.parts.builds:
        build = await _claim(work, service)
        if build is None:
            async with work.finish():
                return None
        try:
            return await _run(build, work, service)
        except _INTERRUPTED:
            await _give_back(build, work)
            raise


async def _run(build: DatasetBuild, work: LeasedTask, service: DatasetContext) -> None:
    if build.attempts > MAX_ATTEMPTS:
        lost = BuildFault(
            field="sources", value=f"{MAX_ATTEMPTS} workers died while building it", expected="smaller sources"
        )
        return await _fail(build, (lost,), work)
    try:
        content = await build_service.build(build.recipe, build.requested_domains, service)
    except CannotBuild as refused:
        return await _fail(build, refused.faults, work)
    except BuildCrashed as error:
        log.warning("build_process_died", build=build.build_id, attempt=build.attempts, reason=str(error))
        if build.attempts < MAX_ATTEMPTS:
            return await _run(await _again(build, work), work, service)
        ended = BuildFault(
            field=error.place.field,
            value=f"{error.place.name or 'build'}: {MAX_ATTEMPTS} build processes died, the last {error.how}",
            expected="smaller sources",
        )
        return await _fail(build, (ended,), work)
    return await _succeed(build, content, work)


async def _claim(work: LeasedTask, service: DatasetContext) -> DatasetBuild | None:
    """The next build, as soon as its domain may have one more running; None when no build waits."""

    async def claim(tx: Transaction) -> DatasetBuild | None:
        build = await build_queue.claim(
            tx.connection, work.lease, work.token, at_most=service.settings.builds_per_domain
        )
        if build is None:
            return None
        build = build_state.take_up(build)
        await build_store.save_build(tx.connection, build)
        return build

    return await claimed(work, claim, build_queue.any_waits, look_seconds=_LOOK_SECONDS)


async def _again(build: DatasetBuild, work: LeasedTask) -> DatasetBuild:
    async with work.transaction() as tx:
        held = await build_queue.held(tx.connection, build.build_id, work.lease, work.token)
        again = build_state.take_up(held)
        await build_store.save_build(tx.connection, again)
        return again


async def _give_back(build: DatasetBuild, work: LeasedTask) -> None:
    """Let the build wait again. Where that cannot be written, it waits again once the ticket's lease has run out."""
    try:
        async with asyncio.timeout(_GIVE_BACK_SECONDS), work.transaction() as tx:
            held = await build_queue.held(tx.connection, build.build_id, work.lease, work.token)
            await build_store.save_build(tx.connection, build_state.give_back(held))
    except _NOT_WRITTEN as error:
        log.warning("build_not_requeued", build=build.build_id, reason=repr(error))


async def _succeed(build: DatasetBuild, content: StoredContent, work: LeasedTask) -> None:
    async with work.finish() as tx:
        held = await build_queue.held(tx.connection, build.build_id, work.lease, work.token)
        stored, is_new = await build_service.add_version(tx.connection, content)
        built = build_state.succeed(held, stored.dataset.dataset_id, stored.version, datetime.now(UTC))
        await build_store.save_build(tx.connection, built)
        if is_new:
            await tx.emit(build_service.frozen(stored, build.build_id), entity=stored.dataset.dataset_id)


async def _fail(build: DatasetBuild, faults: tuple[BuildFault, ...], work: LeasedTask) -> None:
    async with work.finish() as tx:
        held = await build_queue.held(tx.connection, build.build_id, work.lease, work.token)
        await build_store.save_build(tx.connection, build_state.fail(held, faults, datetime.now(UTC)))
