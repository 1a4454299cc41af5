"""HTTP in: a person is forgotten who has an erasure at the trainer. Scope `admin`, for the token's domains."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from fleet_events.text import Text
from fleet_kit.auth import Caller, require
from fleet_kit.caller import EVERY_DOMAIN, is_domain
from fleet_kit.errors import Problem
from services.evaluator.access import Running
from services.evaluator.golden import erasure

router = APIRouter(prefix="/v1/golden-erasures", tags=["golden data sets"])

Admin = Annotated[Caller, Depends(require("admin"))]


class ForgetGolden(BaseModel):
    """Whom to forget: the trainer's erasure, and the person as golden samples name them."""

    model_config = ConfigDict(extra="forbid")

    erasure_id: Text = Field(min_length=1, max_length=200)
    subject: Text = Field(min_length=1, max_length=512, description="It is not kept")
    domain: str = Field(default=EVERY_DOMAIN, description="A domain, or * for all of them")


class ForgottenGolden(BaseModel):
    """Golden samples, and results of theirs, whose text was erased."""

    erasure_id: str
    deleted: int


@router.post("", summary="Erase a person from golden data sets and from what was judged with them")
async def forget(body: ForgetGolden, caller: Admin, service: Running) -> ForgottenGolden:
    """Once it is answered it is done, and no sample about the person is imported any more."""
    if body.domain != EVERY_DOMAIN and not is_domain(body.domain):
        raise Problem(422, "Invalid request", f"domain is {body.domain!r}, expected a domain or *", field="domain")
    caller.reach(body.domain)
    async with service.transaction() as tx:
        deleted = await erasure.forget(
            tx,
            service.blobs,
            erasure_id=body.erasure_id,
            subject=body.subject,
            domain=body.domain,
            by=caller.subject,
        )
    return ForgottenGolden(erasure_id=body.erasure_id, deleted=deleted)
