"""What the HTTP answers about retraining look like."""

from datetime import datetime
from typing import Self

from pydantic import Field

from fleet_events.v1 import RetrainingTrigger
from services.trainer.retraining.rules import RetrainingRules
from services.trainer.retraining.store.firings import Firing, HeldBack
from services.trainer.retraining.store.rules import StoredRules
from services.trainer.schemas import View


class RulesView(View):
    """A domain's rules. `set_by` and `set_at` are empty for a domain without any."""

    domain: str
    rules: RetrainingRules
    set_by: str = ""
    set_at: datetime | None = None

    @classmethod
    def of(cls, stored: StoredRules) -> Self:
        return cls(domain=stored.domain, rules=stored.rules, set_by=stored.set_by, set_at=stored.set_at)


class FiringView(View):
    """A job that rules requested, and why."""

    job_id: str
    active_adapter: str = Field(description="The version that served then; empty for none")
    triggers: tuple[RetrainingTrigger, ...]
    reason: str
    planned_steps: int
    planned_tokens: int
    tokens: int = Field(description="Trained on so far")
    fired_at: datetime
    state: str = Field(description="The job's; empty until its request was accepted")
    error: str

    @classmethod
    def of(cls, firing: Firing) -> Self:
        return cls.model_validate(firing, from_attributes=True)


class SuppressedView(View):
    """A cause that led to no job, and why not."""

    trigger: RetrainingTrigger
    reason: str
    why: str = Field(
        description="no_new_data, no_data, job_open, cooldown, budget, token_budget, quota, invalid_request, "
        "deactivated, cannot_continue, other_base_model, not_measurable, rebuilding or rebuild_failed"
    )
    detail: str
    times: int = Field(description="Evaluations that found it")
    first_at: datetime
    last_at: datetime

    @classmethod
    def of(cls, held: HeldBack) -> Self:
        return cls.model_validate(held, from_attributes=True)


class FiringsView(View):
    """What a domain's rules did and did not do, newest first."""

    firings: list[FiringView]
    suppressed: list[SuppressedView]
