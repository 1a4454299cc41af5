"""HTTP in: what the registry holds, and the policies of domains. The decisions of humans are in `decisions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from fleet_events.v1 import DomainName, Method, PolicyChanged
from fleet_kit.auth import Caller
from fleet_kit.errors import Problem
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with
from services.registry import answers, decisions, keeping_api, own_metrics, upload, usage_api
from services.registry.access import Admin, Reader, Writer, visible
from services.registry.adapter_view import AdapterDetails, AdapterList, AdapterView
from services.registry.comparing import api as comparing
from services.registry.credentials import api as credentials
from services.registry.details import details_of
from services.registry.evaluation_view import EvaluationView
from services.registry.family import Status, Training
from services.registry.family_view import FamilyList, FamilyView
from services.registry.imports import endpoint
from services.registry.manifest import Manifest
from services.registry.migrating import api as migrating
from services.registry.parts import RegistryService, ThisService
from services.registry.policy import InvalidPolicy, Policy
from services.registry.provenance import Provenance
from services.registry.rollout import endpoint as rollouts
from services.registry.rollout.rules import InvalidRules
from services.registry.schemas import AuditView, PolicyBody, RefusalList, Statistics
from services.registry.store import families, listing, usage, versions
from services.registry.timeline import endpoint as timeline
from services.registry.transition import Act, AuditEntry
from services.registry.updating import api as updating

router = APIRouter(prefix="/v1", tags=["registry"])
router.include_router(decisions.router)
router.include_router(rollouts.router)
router.include_router(answers.router)
router.include_router(comparing.router)
router.include_router(own_metrics.router)
router.include_router(updating.router)
router.include_router(migrating.router)
router.include_router(timeline.router)
router.include_router(keeping_api.router)
router.include_router(credentials.router)
router.include_router(usage_api.router)


@router.get("/adapters", summary="Versions, newest first")
async def list_adapters(
    *,
    caller: Reader,
    service: ThisService,
    domain: str | None = None,
    method: Method | None = None,
    status: Status | None = None,
    base_model: Annotated[str | None, Query(description="Name or revision of the base model")] = None,
    active: bool | None = None,
    family: str | None = None,
    before: Annotated[int | None, Query(description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> AdapterList:
    if domain is not None:
        caller.reach(domain)
    filters = listing.Filters(domain, method, status, base_model, active, family)
    async with service.db.acquire(timeout=5) as connection:
        found = await listing.adapters(connection, filters, caller.domain_filter, before, limit)
    return AdapterList(
        adapters=[AdapterView.of(adapter) for _, adapter in found],
        next=found[-1][0] if len(found) == limit else None,
    )


@router.get("/families", summary="Families with their active versions, sorted and in pages")
async def list_families(
    *,
    caller: Reader,
    service: ThisService,
    domain: str | None = None,
    text: Annotated[str, Query(max_length=200, description="Part of a name or a description, case aside")] = "",
    waiting: Annotated[bool, Query(description="Only those with a version that waits for review")] = False,
    serving: Annotated[bool | None, Query(description="Only those with (or without) an active version")] = None,
    base_model: Annotated[str | None, Query(description="Name or revision of the base model of a version")] = None,
    score_below: Annotated[float | None, Query(ge=0, le=100, description="Of the active version")] = None,
    sort: families.Sort = "family",
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> FamilyList:
    if domain is not None:
        caller.reach(domain)
    search = families.Search(
        domain,
        text,
        waiting,
        serving=serving,
        base_model=base_model,
        score_below=score_below,
        sort=sort,
        offset=offset,
        limit=limit,
    )
    async with service.db.acquire(timeout=5) as connection:
        found, total = await families.families(connection, search, caller.domain_filter)
    return FamilyList(families=[FamilyView.model_validate(one) for one in found], total=total)


@router.post(
    "/adapters",
    status_code=201,
    summary="Register a PEFT folder",
    openapi_extra=body_rule("max_artifact_bytes", "multipart/form-data") | upload.OPENAPI,
)
async def register_adapter(
    request: Request, response: Response, caller: Writer, service: ThisService
) -> AdapterDetails:
    adapter = await upload.register_upload(request, caller, service)
    response.headers["Location"] = f"/v1/adapters/{adapter.adapter_id}"
    return await details_of(service, adapter)


@router.post(
    "/adapters/import",
    status_code=201,
    summary="Register an adapter from files in another form, an archive, a bucket or a hub",
    openapi_extra=body_rule("max_artifact_bytes", "multipart/form-data") | endpoint.OPENAPI,
    responses=endpoint.RESPONSES,
)
async def import_adapter(request: Request, response: Response, caller: Writer, service: ThisService) -> AdapterDetails:
    adapter = await endpoint.register_import(request, caller, service)
    response.headers["Location"] = f"/v1/adapters/{adapter.adapter_id}"
    return await details_of(service, adapter)


@router.get("/adapters/{adapter_id}", summary="Everything known of a version")
async def get_adapter(adapter_id: str, caller: Reader, service: ThisService) -> AdapterDetails:
    async with service.db.acquire(timeout=5) as connection:
        adapter = await visible(connection, adapter_id, caller)
    return await details_of(service, adapter)


@router.get("/adapters/{adapter_id}/provenance", summary="The digest chain of a version")
async def get_provenance(adapter_id: str, caller: Reader, service: ThisService) -> Provenance:
    async with service.db.acquire(timeout=5) as connection:
        adapter = await visible(connection, adapter_id, caller)
        return Provenance.of(
            adapter,
            await versions.evaluations_of(connection, adapter_id),
            await usage.replicas_of(connection, adapter_id),
            await usage.usage_of(connection, adapter_id),
        )


@router.get("/adapters/{adapter_id}/audit", summary="Who did what with a version, when and why")
async def get_audit(adapter_id: str, caller: Reader, service: ThisService) -> AuditView:
    async with service.db.acquire(timeout=5) as connection:
        await visible(connection, adapter_id, caller)
        return AuditView.of(await listing.trail(connection, adapter_id))


@router.get("/adapters/{adapter_id}/evaluations", summary="Every score of a version, oldest first")
async def get_evaluations(adapter_id: str, caller: Reader, service: ThisService) -> dict[str, list[EvaluationView]]:
    async with service.db.acquire(timeout=5) as connection:
        await visible(connection, adapter_id, caller)
        found = await versions.evaluations_of(connection, adapter_id)
    return {"evaluations": [EvaluationView.of(one) for one in found]}


@router.get(
    "/adapters/{adapter_id}/report",
    summary="The training report, as the trainer wrote it",
    response_class=Response,
    responses=answers_with("application/json", "text/html"),
)
async def get_report(
    adapter_id: str, caller: Reader, service: ThisService, accept: Annotated[str, Header()] = ""
) -> Response:
    """A browser, which accepts text/html and no JSON, gets the page; everything else the JSON document."""
    training = await _training(service, adapter_id, caller)
    if training.report_page is not None and "text/html" in accept and "application/json" not in accept:
        return _served(await service.blobs.get(training.report_page), "text/html; charset=utf-8")
    return _served(await service.blobs.get(training.report), "application/json")


@router.get(
    "/adapters/{adapter_id}/model-card",
    summary="The model card, Markdown",
    response_class=Response,
    responses=answers_with("text/markdown"),
)
async def get_model_card(adapter_id: str, caller: Reader, service: ThisService) -> Response:
    training = await _training(service, adapter_id, caller)
    if training.model_card is None:
        raise Problem(404, "No model card", f"{adapter_id} was trained before model cards existed; see its report")
    return _served(await service.blobs.get(training.model_card), "text/markdown; charset=utf-8")


@router.get("/adapters/{adapter_id}/manifest", summary="The manifest of a version: its purpose, numbers and forms")
async def get_manifest(adapter_id: str, caller: Reader, service: ThisService) -> Manifest:
    async with service.db.acquire(timeout=5) as connection:
        return Manifest.of(await visible(connection, adapter_id, caller))


@router.get("/policies/{domain}", summary="The approval policy of a domain")
async def get_policy(domain: DomainName, caller: Reader, service: ThisService) -> PolicyBody:
    caller.reach(domain)
    async with service.db.acquire(timeout=5) as connection:
        return PolicyBody.model_validate(await versions.find_policy(connection, domain))


@router.put("/policies/{domain}", summary="Set the approval policy of a domain")
async def put_policy(domain: DomainName, body: PolicyBody, caller: Admin, service: ThisService) -> PolicyBody:
    caller.reach(domain)
    try:
        policy = body.policy()
    except (InvalidPolicy, InvalidRules) as error:
        raise Problem(422, "Invalid policy", str(error), field=error.field) from error
    now = datetime.now(UTC)
    async with service.transaction() as tx:
        await versions.lock_policy(tx.connection, domain)
        before = await versions.find_policy(tx.connection, domain)
        revision = await versions.save_policy(tx.connection, domain, policy, caller.subject, now)
        act = Act(caller.subject, now, "policy set")
        entry = AuditEntry(f"policy/{domain}", "policy_set", act, _plain(before), _plain(policy), revision)
        await versions.add_audit(tx.connection, domain, entry)
        await tx.emit(
            PolicyChanged(
                domain=domain,
                revision=revision,
                by=caller.subject,
                record_answers=policy.record_answers,
                record_fraction=policy.record_fraction,
                personal_data=policy.personal_data,
            ),
            entity=f"policy/{domain}",
        )
    return PolicyBody.model_validate(policy)


@router.get("/policies/{domain}/audit", summary="Who changed a domain's policy, when and from what to what")
async def get_policy_audit(domain: DomainName, caller: Reader, service: ThisService) -> AuditView:
    caller.reach(domain)
    async with service.db.acquire(timeout=5) as connection:
        return AuditView.of(await listing.trail(connection, f"policy/{domain}"))


@router.get("/refusals", summary="Finished trainings that could not be registered, and why")
async def list_refusals(
    caller: Reader,
    service: ThisService,
    domain: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> RefusalList:
    if domain is not None:
        caller.reach(domain)
    async with service.db.acquire(timeout=5) as connection:
        return RefusalList.of(await listing.refusals(connection, domain, caller.domain_filter, limit))


@router.get("/statistics", summary="Counts of versions, answers and ratings by domain")
async def get_statistics(caller: Reader, service: ThisService) -> Statistics:
    reached = caller.domain_filter
    async with service.db.acquire(timeout=5) as connection:
        return Statistics.of(await listing.counts(connection, reached), await listing.service(connection, reached))


def _plain(policy: Policy) -> dict[str, object]:
    return PolicyBody.model_validate(policy).model_dump(mode="json")


async def _training(service: RegistryService, adapter_id: str, caller: Caller) -> Training:
    async with service.db.acquire(timeout=5) as connection:
        adapter = await visible(connection, adapter_id, caller)
    training = adapter.submission.training
    if training is None:
        raise Problem(404, "No training report", f"{adapter_id} was uploaded, not trained here")
    return training


def _served(content: bytes, media_type: str) -> Response:
    # A page brings its styles with it and needs nothing else.
    headers = {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept",
    }
    return Response(content, media_type=media_type, headers=headers)
