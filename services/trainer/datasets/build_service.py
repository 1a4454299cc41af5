"""Builds a data set from its recipe: gathers the sources, runs the building subprocess, stores what it wrote."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.datasets import generators
from services.trainer.datasets.build_fault import BuildFault, CannotBuild
from services.trainer.datasets.build_process import run_process
from services.trainer.datasets.consumer_barrier import settled
from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.dataset import StoredDataset
from services.trainer.datasets.generators.endpoint import Endpoint
from services.trainer.datasets.generators.recipe import Asking
from services.trainer.datasets.golden.known import golden_index
from services.trainer.datasets.recipe import DataRecipe
from services.trainer.datasets.settings import GenerationEndpoint
from services.trainer.datasets.sources import Access, Live, Source
from services.trainer.datasets.sources.source import Gathered
from services.trainer.datasets.store import subjects as subject_store
from services.trainer.datasets.store import versions as dataset_store
from services.trainer.datasets.worker.spec import BuildOutcome, BuildSpec, Built, Input
from services.trainer.work_folder import work_folder


@dataclass(frozen=True)
class StoredContent:
    """A built data set in the object store, which has no version yet."""

    recipe: DataRecipe
    dataset: v1.Dataset
    card: v1.Blob


def check(recipe: DataRecipe, service: DatasetContext) -> None:
    """What can be checked of a recipe before anything is read: every source and generator beside the settings.

    Raises:
        CannotBuild: with all that is wrong.
    """
    faults: list[BuildFault] = []
    for source, access in _sources(recipe, service):
        try:
            source.check(access)
        except CannotBuild as refused:
            faults += refused.faults
    try:
        generators.check(recipe.generators, recipe.kind, _known_endpoints(recipe, service))
    except CannotBuild as refused:
        faults += refused.faults
    if faults:
        raise CannotBuild(*faults)


async def build(recipe: DataRecipe, act_for: tuple[str, ...], service: DatasetContext) -> StoredContent:
    """Build the recipe and store what comes of it.

    Args:
        recipe: checked before, and again here.
        act_for: the domains of the caller who requested it; other services are called for these alone.
        service: the trainer.

    Raises:
        CannotBuild: it can never be built as it is.
        BuildCrashed: the subprocess died.
        what the database and the object store raise.
    """
    with work_folder(service.settings.cache_dir) as folder:
        outcome = await _within(service.settings.build_seconds, _outcome(recipe, folder, act_for, service))
        if not isinstance(outcome, Built):
            raise CannotBuild(*outcome.faults)
        data = await service.blobs.put("datasets", outcome.data, content_type="application/vnd.apache.parquet")
        card = await service.blobs.put("dataset-cards", outcome.card, content_type="application/json")
    dataset = v1.Dataset(
        dataset_id=outcome.dataset_id,
        blob=data,
        samples=outcome.samples,
        kind=recipe.kind.value,
        validation_samples=outcome.validation_samples,
        card=card,
    )
    return StoredContent(recipe, dataset, card)


async def _within(seconds: float, building: Coroutine[None, None, BuildOutcome]) -> BuildOutcome:
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await building
    except TimeoutError:
        if not deadline.expired():
            raise
        slow = f"a build that takes more than {seconds:g} s"
        raise CannotBuild(
            BuildFault(field="sources", value=slow, expected="less data, or a higher LORAFLEET_BUILD_SECONDS")
        ) from None


async def _outcome(recipe: DataRecipe, folder: Path, act_for: tuple[str, ...], service: DatasetContext) -> BuildOutcome:
    return await run_process(await _specify(recipe, folder, act_for, service))


async def add_version(connection: Connection, content: StoredContent) -> tuple[StoredDataset, bool]:
    """The content as a version of the recipe's name, and whether it is a new one; within the caller's transaction.

    It is the newest version there is when that has the same content and the same card.
    """
    recipe, dataset = content.recipe, content.dataset
    await dataset_store.lock_name(connection, recipe.domain, recipe.name)
    newest = await dataset_store.newest_version(connection, recipe.domain, recipe.name)
    if newest and (newest.dataset.dataset_id, newest.dataset.card) == (dataset.dataset_id, content.card):
        return newest, False
    live = next((one for one in recipe.sources if isinstance(one, Live)), Live())
    await dataset_store.add_dataset(connection, recipe.domain, dataset)
    await dataset_store.add_version(
        connection,
        recipe.domain,
        recipe.name,
        dataset_id=dataset.dataset_id,
        card=content.card,
        query=live.query,
        min_rating=live.min_rating,
    )
    added = await dataset_store.newest_version(connection, recipe.domain, recipe.name)
    if added is None:
        raise LookupError(f"version of {recipe.domain}/{recipe.name} is not in the database")
    return added, True


def frozen(stored: StoredDataset, build_id: str = "") -> v1.DatasetFrozen:
    """The event that a version exists."""
    return v1.DatasetFrozen(
        domain=stored.domain, name=stored.name, version=stored.version, dataset=stored.dataset, build_id=build_id
    )


async def _specify(recipe: DataRecipe, folder: Path, act_for: tuple[str, ...], service: DatasetContext) -> BuildSpec:
    check(recipe, service)  # again, for settings may have changed since the request
    inputs: list[Input] = []
    for source, access in _sources(recipe, service):
        to = folder / access.field
        to.mkdir()
        gathered = await _gather(source, to, access)
        inputs.append(
            Input(
                files=gathered.files,
                columns=source.columns,
                origin=source.originates(),
                unusable=source.unusable,
                described={**source.model_dump(mode="json", exclude_defaults=True), "kind": source.kind}
                | dict(gathered.facts),
                field=access.field,
            )
        )
    work = folder / "build"
    work.mkdir()
    await settled(v1.GoldenDatasetPublished, service)
    async with service.db.acquire(timeout=5) as connection:
        golden = await golden_index(connection)
        key = await subject_store.subject_key(connection)
        forgotten = await subject_store.forgotten_in(connection, recipe.domain)
    await asyncio.to_thread(golden.dump, folder / "golden.jsonl")
    return BuildSpec(
        domain=recipe.domain,
        name=recipe.name,
        kind=recipe.kind,
        inputs=tuple(inputs),
        filters=recipe.filters,
        generators=recipe.generators,
        endpoints=_endpoints(recipe, act_for, service),
        golden=folder / "golden.jsonl",
        subject_key=key.hex(),
        forgotten=frozenset(forgotten),
        validation_part=recipe.validation_part,
        seed=recipe.seed,
        licence=recipe.licence,
        adapter_type=recipe.adapter_type,
        work=work,
        supervisor=os.getpid(),
        memory_bytes=service.settings.build_memory_bytes,
        source_bytes=service.settings.source_bytes,
    )


async def _gather(source: Source, to: Path, access: Access) -> Gathered:
    seconds = access.service.settings.source_seconds
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await source.gather(to, access)
    except TimeoutError:
        if not deadline.expired():
            raise
        slow = f"{source.kind} is not read within {seconds:g} s"
        raise CannotBuild(
            BuildFault(field=access.field, value=slow, expected="a faster source, or a higher LORAFLEET_SOURCE_SECONDS")
        ) from None


def _sources(recipe: DataRecipe, service: DatasetContext) -> Iterator[tuple[Source, Access]]:
    for number, source in enumerate(recipe.sources):
        yield source, Access(recipe.domain, recipe.kind, service, f"sources.{number}")


def _known_endpoints(recipe: DataRecipe, service: DatasetContext) -> dict[str, GenerationEndpoint]:
    named = service.settings.generation_endpoints
    return {name: one for name, one in named.items() if one.reaches(recipe.domain)}


def _endpoints(recipe: DataRecipe, act_for: tuple[str, ...], service: DatasetContext) -> dict[str, Endpoint]:
    """Those that the recipe's generators name."""
    known = _known_endpoints(recipe, service)
    wanted = {one.endpoint for one in recipe.generators.generators if isinstance(one, Asking)}
    return {name: known[name].opened(act_for, service.settings.tls_ca_file) for name in wanted}
