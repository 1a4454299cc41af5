"""Who answered: the response's field `lorafleet`."""

from pydantic import BaseModel

from fleet_events.v1 import RolloutArm


class Routed(BaseModel):
    """The router's answer to `model: auto`."""

    matched: bool
    """False: no adapter was near enough, the base model answered."""
    adapter_id: str | None = None
    score: float | None = None
    """Of the adapter, or of the nearest one where none was near enough."""
    threshold: float | None = None
    """From which score on it would have been, or was, near enough."""
    margin: float | None = None
    """How far the nearest adapter is before the second."""
    ambiguous: bool = False
    """Others suit about as well: POST /v1/route of the router names them."""
    reason: str


class Weighted(BaseModel):
    """One adapter of a set."""

    adapter_id: str
    artifact_sha256: str
    weight: float


class Fallback(BaseModel):
    """Another model answered than the requested one."""

    requested: str
    reason: str
    """The code of the error that the request would have got, or `adapter_not_approved`."""
    message: str


class RolledOut(BaseModel):
    """The part of a request in its family's rollout."""

    rollout_id: str
    step: int
    arm: RolloutArm
    """candidate: the version that is being rolled out answered. incumbent: the active one."""


class Provenance(BaseModel):
    """Who answered; the response's field `lorafleet`."""

    adapter_id: str | None
    """None is the base model; of a set, the adapter with the largest weight."""
    artifact_sha256: str | None
    base_model: str
    base_model_revision: str
    routed: Routed | None
    """Only for `model: auto`."""
    mix: list[Weighted] | None = None
    """Only for a weighted set: all of it."""
    fallback: Fallback | None = None
    """Only where the requested model could not serve and another was allowed to."""
    rollout: RolledOut | None = None
    """Only while a version of the requested family is being rolled out."""
