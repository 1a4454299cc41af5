"""The long work on a queued build: build it, under a lease, until there is a version or a reason why not."""

from datetime import UTC, datetime

import structlog

from fleet_kit.work import Work
from services.trainer.data import build_store, builder, dataset_build
from services.trainer.data.build_spec import BuildFault, CannotBuild
from services.trainer.data.builder import BuildCrashed, StoredContent
from services.trainer.data.dataset_build import MAX_ATTEMPTS, DatasetBuild
from services.trainer.service import TrainerService

log = structlog.get_logger()


async def run_build(build_id: str, work: Work, service: TrainerService) -> None:
    """Take the build from wherever it stands to its end. Whoever takes it over begins anew: nothing is half-written.

    Raises:
        LeaseLost: another worker has the build.
        what passes by itself (see fleet_kit.settle): the message comes again.
    """
    while True:
        build = await _take_up(build_id, work)
        if build.state.final:
            async with work.finish():
                return None
        if build.attempts > MAX_ATTEMPTS:
            gone = BuildFault(field="sources", value=f"{MAX_ATTEMPTS} workers died over it", expected="smaller sources")
            return await _fail(build_id, (gone,), work)
        try:
            content = await builder.build(build.recipe, service)
        except CannotBuild as refused:
            return await _fail(build_id, refused.faults, work)
        except BuildCrashed as error:
            log.warning("building process died", build=build_id, attempt=build.attempts, reason=str(error))
            continue
        return await _succeed(build_id, content, work)


async def _take_up(build_id: str, work: Work) -> DatasetBuild:
    async with work.transaction() as tx:
        build = await build_store.locked(tx.connection, build_id)
        if not build.state.final:
            build = dataset_build.take_up(build)
            await build_store.save_build(tx.connection, build)
            await work.progress(tx)  # from here on the build counts its own attempts
        return build


async def give_up_build(build_id: str, reason: str, work: Work) -> None:
    """Fail a build whose workers were killed before they could take it up."""
    async with work.transaction() as tx:
        over = (await build_store.locked(tx.connection, build_id)).state.final
    if over:
        async with work.finish():
            return
    await _fail(build_id, (BuildFault(field="sources", value=reason, expected="smaller sources"),), work)


async def _succeed(build_id: str, content: StoredContent, work: Work) -> None:
    async with work.finish() as tx:
        stored, is_new = await builder.add_version(tx.connection, content)
        build = await build_store.locked(tx.connection, build_id)
        built = dataset_build.succeed(build, stored.dataset.dataset_id, stored.version, datetime.now(UTC))
        await build_store.save_build(tx.connection, built)
        if is_new:
            await tx.emit(builder.frozen(stored, build_id), entity=stored.dataset.dataset_id)


async def _fail(build_id: str, faults: tuple[BuildFault, ...], work: Work) -> None:
    async with work.finish() as tx:
        build = await build_store.locked(tx.connection, build_id)
        await build_store.save_build(tx.connection, dataset_build.fail(build, faults, datetime.now(UTC)))
