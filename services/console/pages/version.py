"""Everything known of one version, and the decisions about it."""

from __future__ import annotations

from typing import Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from lorafleet import calls
from lorafleet.calls.paths import path_segment
from services.console.rendering import page
from services.console.together import together
from services.console.viewer import FORM, Submitted, ThisViewer

DECISIONS: Final = frozenset({"approve", "reject", "activate", "deactivate"})
"""Those that are refused where another person has decided since the page was made."""
router = APIRouter(include_in_schema=False)
Verb = Literal["approve", "reject", "activate", "deactivate", "hold", "unhold"]


@router.get("/console/versions/{adapter_id}")
async def show(request: Request, adapter_id: str, viewer: ThisViewer) -> Response:
    """Lineage, scores, service, trail and siblings of a version."""
    adapter = await viewer.call(calls.adapter(adapter_id))
    chain, trail = await together(viewer.call(calls.provenance(adapter_id)), viewer.call(calls.audit(adapter_id)))
    siblings = await viewer.call(calls.adapters(family=adapter.family))
    evaluations = await viewer.if_available(calls.evaluations(adapter_id))
    rollout = await viewer.maybe(calls.rollout(adapter.family))
    manifest = await viewer.maybe(calls.manifest(adapter_id))
    return page(
        request,
        "version.html",
        viewer,
        adapter=adapter,
        chain=chain,
        trail=list(reversed(trail)),
        evaluations=evaluations,
        siblings=[one for one in siblings if one.adapter_id != adapter_id],
        rollout=rollout.rollout if rollout else None,
        manifest=manifest,
    )


@router.post("/console/versions/{adapter_id}/{verb}", openapi_extra=FORM)
async def decide(adapter_id: str, verb: Verb, viewer: ThisViewer, form: Submitted) -> Response:
    """Approve, reject, activate, deactivate, hold or unhold, with a reason; refused (409) where it is decided."""
    seen = {"status": form.get("seen_status", ""), "active": form.get("seen_active") == "True"}
    further: dict[str, object] = {"seen": seen} if verb in DECISIONS and seen["status"] else {}
    if verb == "approve" and form.get("without_evaluation"):
        further["without_evaluation"] = True
    await viewer.call(calls.decide(adapter_id, verb, form.get("reason", ""), **further))
    back = form.get("back", "")
    where = "/console/review" if back == "review" else f"/console/versions/{path_segment(adapter_id)}"
    return RedirectResponse(where, 303)
