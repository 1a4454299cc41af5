"""Creating, changing, resolving and freezing golden data sets: transactions over store.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet_kit.db import Connection
from services.evaluator.domain import EvaluationFailure, GoldenVersion, next_version, parse_version, split_reference
from services.evaluator.golden import samples as golden
from services.evaluator.golden import store as golden_store
from services.evaluator.golden.samples import ContextUse, GoldenSample


class Conflict(Exception):
    """The data set exists in a way that forbids this; the message gives what would be right."""


class Unknown(Exception):
    """There is no such data set or version."""


@dataclass(frozen=True)
class Change:
    """What a change of samples led to. `opened` is the new version's name if the present one was frozen."""

    version: GoldenVersion
    changed: bool
    opened: str | None


async def create(
    connection: Connection,
    *,
    dataset_id: str,
    domain: str,
    version: str,
    description: str,
    context_use: ContextUse,
    by: str,
) -> tuple[GoldenVersion, bool]:
    """The version, and whether it is new. Creating one that is there with the same domain and use is no error.

    Raises BadVersion, or Conflict for another domain, another context use, or a version below the newest.
    """
    wanted = parse_version(version)
    await golden_store.lock_dataset(connection, dataset_id)
    present = await golden_store.versions(connection, dataset_id)
    if present and present[0].domain != domain:
        raise Conflict(f"dataset_id: {dataset_id!r} belongs to another domain; choose another id")
    for known in present:
        if known.version == version:
            if known.context_use != context_use:
                raise Conflict(f"context_use: version {version} has {known.context_use!r}; choose a higher version")
            return known, False
    if present and wanted < parse_version(present[0].version):
        raise Conflict(f"version: {version} is below the newest, {present[0].version}; choose a higher one")
    await golden_store.add_version(
        connection,
        dataset_id=dataset_id,
        version=version,
        domain=domain,
        description=description,
        context_use=context_use,
        created_by=by,
    )
    return await get(connection, dataset_id, version), True


async def get(connection: Connection, dataset_id: str, version: str | None = None) -> GoldenVersion:
    """The version, or the newest; raises Unknown."""
    for known in await golden_store.versions(connection, dataset_id):
        if version in (None, known.version):
            return known
    raise unknown(dataset_id, version)


def unknown(dataset_id: str, version: str | None = None) -> Unknown:
    """What does not exist, or not for this caller: both read the same."""
    return Unknown(f"golden data set {dataset_id!r}" + (f" version {version!r}" if version else "") + " does not exist")


def let_go(version: GoldenVersion) -> str:
    """That a version has no samples any more, as a sentence."""
    return (
        f"the samples of golden data set {version.dataset_id} version {version.version} were let go at "
        f"{version.let_go_at:%Y-%m-%d} by the domain's retention rule"
    )


async def set_samples(
    connection: Connection, dataset_id: str, wanted: Sequence[GoldenSample], *, replace: bool, by: str
) -> Change:
    """Add the samples to the newest version (same ids are replaced), or make them all it has.

    A frozen version is never touched: the change goes into the next minor version, which begins as its copy. What
    changes nothing opens no version. Raises Unknown.
    """
    await golden_store.lock_dataset(connection, dataset_id)
    newest = await get(connection, dataset_id)
    present = await golden_store.samples(connection, dataset_id, newest.version)
    result = list(wanted) if replace else golden.merge(present, wanted)
    if result == present:
        return Change(newest, changed=False, opened=None)
    target, opened = newest.version, None
    if newest.frozen:
        target = opened = next_version(newest.version)
        await golden_store.add_version(
            connection,
            dataset_id=dataset_id,
            version=target,
            domain=newest.domain,
            description=newest.description,
            context_use=newest.context_use,
            created_by=by,
        )
    else:
        await golden_store.clear_samples(connection, dataset_id, target)
    await golden_store.add_samples(connection, dataset_id, target, result)
    return Change(await get(connection, dataset_id, target), changed=True, opened=opened)


async def freeze_for(connection: Connection, domain: str, reference: str) -> tuple[GoldenVersion, str]:
    """The version to judge with and its digest; frozen from now on.

    reference is `id`, `id@version` or empty for the domain's newest. Raises EvaluationFailure with the reason.
    """
    found = await _resolve(connection, domain, reference)
    await golden_store.lock_dataset(connection, found.dataset_id)
    found = await get(connection, found.dataset_id, found.version)
    if found.let_go_at is not None:
        raise EvaluationFailure(f"{let_go(found)}; judge with a newer version")
    if found.erased_by:
        raise EvaluationFailure(
            f"golden data set {found.dataset_id} version {found.version} lost samples about people who are forgotten; "
            "judge with a newer version"
        )
    if found.sha256 is None:
        samples = await golden_store.samples(connection, found.dataset_id, found.version)
        if not samples:
            raise EvaluationFailure(f"golden data set {found.dataset_id} version {found.version} has no samples")
        await golden_store.freeze(
            connection, found.dataset_id, found.version, golden.digest(samples, found.context_use)
        )
        found = await get(connection, found.dataset_id, found.version)
    if found.sha256 is None:
        raise RuntimeError(f"golden data set {found.dataset_id} was not frozen")
    return found, found.sha256


async def _resolve(connection: Connection, domain: str, reference: str) -> GoldenVersion:
    if not reference:
        newest = await golden_store.newest_of_domain(connection, domain)
        if newest is None:
            raise EvaluationFailure(f"domain {domain!r} has no golden data set with samples; create one first")
        return newest
    try:
        found = await get(connection, *split_reference(reference))
    except Unknown as error:
        raise EvaluationFailure(str(error)) from error
    if found.domain != domain:
        raise EvaluationFailure(f"golden data set {reference!r} does not belong to domain {domain!r}")
    return found
