"""HTTP in: numbers of a version that users measured themselves (LA-1.7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Self, TypeAlias

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from fleet_events.text import Text
from fleet_kit.errors import Problem
from services.registry import repository
from services.registry.access import Writer, visible
from services.registry.adapter_view import AdapterDetails, metrics_of
from services.registry.details import details_of
from services.registry.parts import ThisService
from services.registry.store import metrics, versions
from services.registry.store.metrics import OwnMetric
from services.registry.transition import Act, AuditEntry

router = APIRouter(prefix="/adapters/{adapter_id}")

MOST_METRICS = 200
"""Of one version."""

MetricName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]{0,62}$")]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class MetricBody(BaseModel):
    """A number, with the interval and the number of measurements where they are known."""

    model_config = ConfigDict(extra="forbid")

    value: Number
    ci_low: Number | None = None
    ci_high: Number | None = None
    samples: Annotated[int, Field(ge=1, lt=1 << 53)] | None = None
    note: Text = Field(default="", max_length=2000)

    @model_validator(mode="after")
    def _around(self) -> Self:
        low, high = self.ci_low, self.ci_high
        if (low is None) != (high is None):
            raise ValueError("give both ci_low and ci_high, or neither")
        if low is not None and high is not None and not low <= self.value <= high:
            raise ValueError(f"expected ci_low <= value <= ci_high, not {low:g}, {self.value:g}, {high:g}")
        return self


class MetricsBody(BaseModel):
    """Metrics to set, by name; null removes one. Those that are not named stay."""

    model_config = ConfigDict(extra="forbid")

    metrics: dict[MetricName, MetricBody | None] = Field(default_factory=dict, max_length=MOST_METRICS)
    reason: Text = Field(default="", max_length=2000)


@router.put("/metrics", summary="Set, change or remove metrics of one's own for a version")
async def put_metrics(adapter_id: str, body: MetricsBody, caller: Writer, service: ThisService) -> AdapterDetails:
    now = datetime.now(UTC)
    async with service.transaction() as tx:
        adapter = await visible(tx.connection, adapter_id, caller)
        if not body.metrics:
            raise Problem(422, "Invalid request", "no metric is named, expected at least one", field="metrics")
        if taken := sorted(metrics_of(adapter).keys() & body.metrics.keys()):
            detail = f"{taken[0]} is measured by the fleet itself and cannot be set; choose another name"
            raise Problem(422, "Invalid request", detail, field=f"metrics.{taken[0]}")
        family = await repository.lock(tx, adapter.submission.domain, adapter.submission.method)
        before = await metrics.own_metrics(tx.connection, adapter_id)
        for name, metric in body.metrics.items():
            if metric is None:
                await metrics.remove_metric(tx.connection, adapter_id, name)
            else:
                own = OwnMetric(**metric.model_dump(), set_by=caller.subject, set_at=now)
                await metrics.set_metric(tx.connection, adapter_id, name, own)
        after = await metrics.own_metrics(tx.connection, adapter_id)
        if len(after) > MOST_METRICS:
            detail = f"{adapter_id} would have {len(after)} metrics, expected at most {MOST_METRICS}; remove some"
            raise Problem(422, "Invalid request", detail, field="metrics")
        act = Act(caller.subject, now, body.reason or "metrics set")
        old, new = _plain(before, body.metrics), _plain(after, body.metrics)
        entry = AuditEntry(adapter_id, "metrics_set", act, old, new, family.revision)
        await versions.add_audit(tx.connection, family.domain, entry)
    return await details_of(service, adapter)


def _plain(found: dict[str, OwnMetric], names: Iterable[str]) -> dict[str, object]:
    """Those of these names, as the audit trail keeps them."""
    return {
        name: {key: value for key, value in asdict(found[name]).items() if key not in ("set_by", "set_at")}
        for name in sorted(names)
        if name in found
    }
