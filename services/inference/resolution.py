"""What the `model` of a request means: a base model, an adapter, or a question for the router. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet_events.v1 import Adapter
from services.inference.catalogue import Catalogue, Standing
from services.inference.errors import BadRequest, CannotServe, Incompatible, NotActive, NotApproved, UnknownModel

AUTO = "auto"
CANDIDATES_SCOPE = "candidates"
EVERY_DOMAIN = "*"
SUGGESTIONS = 5
SET, WEIGHT = "+", ":"
MOST, HEAVIEST = 3, 2.0


class Asker(Protocol):
    """What resolution needs to know of a caller."""

    @property
    def scopes(self) -> frozenset[str]: ...
    @property
    def domains(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Base:
    """A base model of this process: its name in requests and its revision digest."""

    name: str
    revision: str


Bases = Sequence[Base]
"""All base models of this process, of different names and revisions; the first answers where a request names none."""


def base_of(adapter: Adapter, bases: Bases) -> Base | None:
    """The base model that the adapter was trained on, if this process has it."""
    return next((base for base in bases if base.revision == adapter.base_model.revision), None)


@dataclass(frozen=True, slots=True)
class Auto:
    """The router decides."""


@dataclass(frozen=True, slots=True)
class Mix:
    """A weighted set of adapters that answer together, at most `MOST` of them."""

    parts: tuple[tuple[Adapter, float], ...]


Resolution = Base | Adapter | Mix | Auto


def resolve(model: str, catalogue: Catalogue, bases: Bases, asker: Asker, *, approved: bool = False) -> Resolution:
    """A base model's name, exact adapter id, family (its active version), a set of these, or `auto`.

    `family@1.2.0` is that version. A set is `name:weight+name:weight`; a weight left out is 1. approved: a version that
    is approved and was never active may answer too, by its name: the next version beside today's.

    Raises:
        BadRequest: a set of too many, of one twice, of several base models, or with a weight that is none.
        UnknownModel: nothing has this name, or only candidates that this caller may not use, or what has it belongs
            to a domain that the caller does not reach: all three read the same.
        NotApproved: an `UnknownModel` of a domain that the caller reaches: a candidate, or a rejected version.
        NotActive: the version, or every version of the family, is withdrawn.
        Incompatible: the adapter belongs to a base model that this process does not have.
        CannotServe: what is active is not what was approved.
    """
    for base in bases:
        if model == base.name:
            return base
    if model == AUTO:
        return Auto()
    if SET in model or WEIGHT in model:
        parts = _parts(model)
        if found := {name for name, _ in parts} & {AUTO, *(base.name for base in bases)}:
            raise _no_set(f"{min(found)!r} is no adapter, and a set has adapters alone")
        mix = Mix(tuple((_one(name, catalogue, bases, asker, approved=approved), weight) for name, weight in parts))
        if len({adapter.base_model.revision for adapter, _ in mix.parts}) > 1:
            raise _no_set(f"the adapters of {model!r} belong to different base models")
        return mix
    return _one(model, catalogue, bases, asker, approved=approved)


def _one(model: str, catalogue: Catalogue, bases: Bases, asker: Asker, *, approved: bool) -> Adapter:
    family, at, version = model.partition("@")
    if at:
        model = f"{family}-v{version}"
    if model in catalogue.records:
        adapter = _version(model, catalogue, bases, asker, approved=approved)
    elif model in catalogue.families:
        adapter = _active_of(model, catalogue, bases, asker)
    else:
        raise UnknownModel(model, usable(catalogue, bases, asker))
    if not reaches(asker, adapter.domain):
        raise UnknownModel(model, usable(catalogue, bases, asker))
    check(adapter, catalogue, bases, asker)
    return adapter


def _parts(model: str) -> list[tuple[str, float]]:
    parts: list[tuple[str, float]] = []
    for part in model.split(SET):
        name, given, weight = part.strip().partition(WEIGHT)
        try:
            factor = float(weight) if given else 1.0
        except ValueError:
            factor = 0.0
        if not name or not 0 < factor <= HEAVIEST:
            raise _no_set(f"{part.strip()!r} is not name:weight with a weight above 0 and at most {HEAVIEST:g}")
        parts.append((name, factor))
    if len(parts) > MOST or len({name for name, _ in parts}) < len(parts):
        raise _no_set(f"{model!r} has {len(parts)} adapters, expected at most {MOST}, each of them once")
    return parts


def _no_set(fault: str) -> BadRequest:
    message = f"{fault}. A weighted set looks like 'law-lora@1.0.0:0.7+tax-lora:0.3'."
    return BadRequest(message, code="invalid_adapter_set", param="model")


def check(adapter: Adapter, catalogue: Catalogue, bases: Bases, asker: Asker) -> None:
    """Base model and approved digest of an adapter that the caller reaches; raises as `resolve` does."""
    if base_of(adapter, bases) is None:
        raise Incompatible(
            adapter.adapter_id,
            _pinned(adapter.base_model.name, adapter.base_model.revision),
            ", ".join(_pinned(base.name, base.revision) for base in bases),
            compatible(catalogue, bases, asker, near=adapter.domain),
        )
    record = catalogue.records[adapter.adapter_id]
    if record.approved_sha256 and record.approved_sha256 != adapter.artifact.blob.sha256:
        raise CannotServe(
            f"adapter {adapter.adapter_id!r} is registered with artifact {adapter.artifact.blob.sha256[:12]}… "
            f"but {record.approved_sha256[:12]}… was judged and approved; register and evaluate it again.",
            code="artifact_not_approved",
            param="model",
        )


def reaches(asker: Asker, domain: str) -> bool:
    """Whether the caller's token covers a domain."""
    return EVERY_DOMAIN in asker.domains or domain in asker.domains


def visible(catalogue: Catalogue, bases: Bases, asker: Asker) -> list[Adapter]:
    """Adapters that this caller could generate with now: active ones, and every version for the evaluator."""
    if CANDIDATES_SCOPE in asker.scopes:
        adapters = [record.adapter for record in catalogue.records.values() if record.adapter]
    else:
        adapters = list(catalogue.active.values())
    servable = [one for one in adapters if reaches(asker, one.domain) and base_of(one, bases)]
    return sorted(servable, key=lambda one: one.adapter_id)


def compatible(catalogue: Catalogue, bases: Bases, asker: Asker, near: str = "") -> list[str]:
    """Ids of active adapters of these base models that the caller reaches, those of domain `near` first."""
    fitting = [one for one in catalogue.active.values() if reaches(asker, one.domain) and base_of(one, bases)]
    fitting.sort(key=lambda one: (one.domain != near, one.adapter_id))
    return [one.adapter_id for one in fitting[:SUGGESTIONS]]


def usable(catalogue: Catalogue, bases: Bases, asker: Asker) -> Sequence[str]:
    """A few names that would have worked."""
    return [*(base.name for base in bases), *compatible(catalogue, bases, asker)]


def _version(adapter_id: str, catalogue: Catalogue, bases: Bases, asker: Asker, *, approved: bool) -> Adapter:
    record = catalogue.records[adapter_id]
    standing = catalogue.standing(adapter_id)
    privileged = CANDIDATES_SCOPE in asker.scopes or (approved and standing is Standing.APPROVED)
    if record.adapter is not None and (privileged or standing is Standing.ACTIVE):
        return record.adapter
    # Candidates and rejected versions do not exist for ordinary callers; beyond a caller's domains nothing does.
    if not reaches(asker, record.domain):
        raise UnknownModel(adapter_id, usable(catalogue, bases, asker))
    if standing is Standing.INACTIVE:
        raise _not_active(adapter_id, record.family, catalogue)
    raise NotApproved(adapter_id, usable(catalogue, bases, asker))


def _active_of(family: str, catalogue: Catalogue, bases: Bases, asker: Asker) -> Adapter:
    if family in catalogue.active:
        return catalogue.active[family]
    members = [record for record in catalogue.records.values() if record.family == family]
    if not any(reaches(asker, record.domain) for record in members):
        raise UnknownModel(family, usable(catalogue, bases, asker))
    if Standing.INACTIVE in {catalogue.standing(record.adapter_id) for record in members}:
        raise _not_active(family, family, catalogue)
    raise NotApproved(family, usable(catalogue, bases, asker))


def _not_active(model: str, family: str, catalogue: Catalogue) -> NotActive:
    active = catalogue.active.get(family)
    instead = f"use {active.adapter_id!r} or {family!r}" if active else "no version of its family is active"
    return NotActive(
        f"{model!r} is deactivated and takes no new requests; {instead}.",
        code="adapter_not_active",
        param="model",
        extra={"active_version": active.adapter_id if active else None},
    )


def _pinned(name: str, revision: str) -> str:
    return f"{name}@{revision[:12]}"
