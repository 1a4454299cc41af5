"""Which records a job trains on: a data set by its id, or the live records that its query selects, frozen now."""

from typing import Protocol

import structlog

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.datasets import build_service
from services.trainer.datasets.build_fault import CannotBuild
from services.trainer.datasets.context import DatasetContext
from services.trainer.datasets.dataset import LIVE, StoredDataset
from services.trainer.datasets.filters import FilterRecipe
from services.trainer.datasets.generators.recipe import Distillation, GeneratorRecipe
from services.trainer.datasets.recipe import DataRecipe
from services.trainer.datasets.records import Kind
from services.trainer.datasets.sources import Frozen, Live
from services.trainer.datasets.store import samples as store
from services.trainer.datasets.store import versions as dataset_store
from services.trainer.faults import Fault, InvalidRequest

log = structlog.get_logger()

DISTILLED = "distilled"
"""Name of the data sets that jobs distil."""
DISTILS = (Kind.COMPLETION, Kind.CONVERSATION)
"""Kinds of data sets whose answers can be an adapter's own."""


class TakesRecords(Protocol):
    """An objective, as far as the choice of records depends on it."""

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of data sets that can be trained with it."""
        ...

    @property
    def live(self) -> Kind:
        """The kind that is made of live records where no data set is named."""
        ...


_NEEDED = {
    Kind.COMPLETION: "recorded samples (POST /v1/samples, or SampleRecorded)",
    Kind.PREFERENCE: "recorded preferences (PreferenceRecorded), or differently rated samples of one prompt",
    Kind.RANKING: "two or more differently rated samples of one prompt",
}


async def freeze_selection(
    request: v1.TrainingRequested, objective: TakesRecords, service: DatasetContext
) -> StoredDataset:
    """The data set of a request: the named one, or what its query selects now.

    Without a data set an objective takes the live records of its own kind: sft samples, dpo preferences, ranking
    rankings (see `sources/live.py`). Nothing is filtered then but what golden data sets hold.

    With `distil_from` the named data set's prompts are taken, answered anew by that adapter.

    Raises:
        InvalidRequest: the named data set is not there or does not fit the objective, or nothing matches.
    """
    if request.dataset_id:
        async with service.db.acquire(timeout=5) as connection:
            named = await named_dataset(connection, request, objective)
        return await _distilled(request, named, service) if request.distil_from else named
    kind = objective.live
    recipe = DataRecipe(
        domain=request.domain,
        name=LIVE,
        kind=kind,
        sources=(Live(query=request.query, min_rating=request.min_rating),),
        filters=FilterRecipe(exact_duplicates=None),
    )
    try:
        content = await build_service.build(recipe, (request.domain,), service)
    except CannotBuild as nothing:
        if nothing.faults[0].field != "sources":
            faults = (Fault(one.field, one.value, one.expected) for one in nothing.faults)
            raise InvalidRequest(tuple(faults)) from nothing
        async with service.db.acquire(timeout=5) as connection:
            recorded = await store.count_samples(connection, request.domain)
        raise InvalidRequest((_nothing(request, kind, recorded),)) from nothing
    async with service.transaction() as tx:
        stored, is_new = await build_service.add_version(tx.connection, content)
        if is_new:
            await tx.emit(build_service.frozen(stored), entity=stored.dataset.dataset_id)
    return stored


async def _distilled(request: v1.TrainingRequested, named: StoredDataset, service: DatasetContext) -> StoredDataset:
    """The prompts of a data set with an adapter's answers; as many of them validate as before."""
    dataset = named.dataset
    recipe = DataRecipe(
        domain=request.domain,
        name=DISTILLED,
        kind=Kind(dataset.kind),
        sources=(Frozen(dataset_id=dataset.dataset_id),),
        filters=FilterRecipe(exact_duplicates=None),
        generators=GeneratorRecipe(generators=(Distillation(model=request.distil_from),)),
        validation_part=min(0.5, dataset.validation_samples / max(1, dataset.samples)),
    )
    try:
        content = await build_service.build(recipe, (request.domain,), service)
    except CannotBuild as refused:
        faults = (Fault("distil_from", f"{request.distil_from}: {one.value}", one.expected) for one in refused.faults)
        raise InvalidRequest(tuple(faults)) from refused
    async with service.transaction() as tx:
        stored, is_new = await build_service.add_version(tx.connection, content)
        if is_new:
            await tx.emit(build_service.frozen(stored), entity=stored.dataset.dataset_id)
    return stored


async def named_dataset(
    connection: Connection, request: v1.TrainingRequested, objective: TakesRecords
) -> StoredDataset:
    """The data set that a request names.

    Raises:
        InvalidRequest: the request's domain does not own it, or its kind does not fit the objective.
    """
    stored = await dataset_store.find_dataset(connection, request.dataset_id)
    if stored is None or stored.domain != request.domain:
        raise InvalidRequest(
            (Fault("dataset_id", request.dataset_id, f"the id of a data set of domain {request.domain!r}"),)
        )
    if stored.removed_at is not None:
        expected = f"a data set whose records are kept; these were removed: {stored.removed_because}"
        raise InvalidRequest((Fault("dataset_id", request.dataset_id, expected),))
    if stored.dataset.kind not in objective.kinds:
        found = f"{request.dataset_id} ({stored.dataset.kind})"
        kinds = " or ".join(kind.value for kind in objective.kinds)
        expected = f"a data set of kind {kinds} for objective {objective.name!r}"
        raise InvalidRequest((Fault("dataset_id", found, expected),))
    return stored


def _nothing(request: v1.TrainingRequested, kind: Kind, recorded: int) -> Fault:
    if not recorded and kind is Kind.COMPLETION:
        return Fault("domain", request.domain, f"a domain with {_NEEDED[kind]}")
    floor = f" rated at least {request.min_rating:g}" if request.min_rating is not None else ""
    if kind is not Kind.COMPLETION and not request.query:
        return Fault("domain", request.domain, f"a domain with {_NEEDED[kind]}{floor}")
    return Fault("query", request.query, f"words that occur in the {recorded} samples of {request.domain!r}{floor}")
