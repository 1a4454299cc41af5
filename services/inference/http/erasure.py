"""HTTP in: a person is forgotten who has an erasure at the trainer. Scope `admin`, for the token's domains."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from fleet_events.text import Text
from fleet_events.v1 import SubjectErased
from fleet_kit.auth import Caller, require
from fleet_kit.caller import EVERY_DOMAIN, is_domain
from fleet_kit.errors import Problem
from services.inference.batches.store import reachable
from services.inference.http.access import Parts, ThisService

router = APIRouter()
Admin = Annotated[Caller, Depends(require("admin"))]


class ForgetStored(BaseModel):
    """Whom to forget: the trainer's erasure, and the person as requests and tokens name them."""

    model_config = ConfigDict(extra="forbid")

    erasure_id: Text = Field(min_length=1, max_length=200)
    subject: Text = Field(min_length=1, max_length=512, description="It is not kept")
    domain: str = Field(default=EVERY_DOMAIN, description="A domain, or * for all of them")


class ForgottenStored(BaseModel):
    """Stored responses, files and batches that were deleted."""

    erasure_id: str
    deleted: int


@router.post("/v1/stored-erasures")
async def forget(body: ForgetStored, caller: Admin, parts: Parts, service: ThisService) -> ForgottenStored:
    """Delete a person's stored responses, files and batches, at any replica for all; again is the same."""
    if body.domain != EVERY_DOMAIN and not is_domain(body.domain):
        raise Problem(422, "Invalid request", f"domain is {body.domain!r}, expected a domain or *", field="domain")
    caller.reach(body.domain)
    with reachable():
        deleted = await parts.responses.erase(body.subject, body.domain)
        deleted += await parts.batches.erase(body.subject, body.domain)
        erased = SubjectErased(erasure_id=body.erasure_id, service="inference", deleted=deleted, part=1)
        await service.publish(erased, body.erasure_id)
    return ForgottenStored(erasure_id=body.erasure_id, deleted=deleted)
