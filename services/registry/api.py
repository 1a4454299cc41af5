"""HTTP in: what the registry holds, and the decisions of humans."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from fleet_events import v1
from fleet_events.topology import Row, row_of
from fleet_events.v1 import DomainName, Method
from fleet_kit.auth import Caller
from fleet_kit.errors import Problem
from fleet_kit.http import dependency
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with
from services.registry import domain, record, upload
from services.registry.access import Admin, Approver, Reader, Writer, visible
from services.registry.adapter_view import AdapterDetails, AdapterList, AdapterView, EvaluationView
from services.registry.change import Act, AuditEntry, Change, NotAllowed
from services.registry.family import Adapter, Family, Status, Training
from services.registry.imports import endpoint
from services.registry.manifest import Manifest
from services.registry.parts import RegistryService
from services.registry.policy import InvalidPolicy, Policy
from services.registry.provenance import Provenance
from services.registry.store import listing, usage, versions
from services.registry.wire import AuditView, PolicyBody, Reason, RefusalList, Statistics
from services.registry.withdrawal import WithdrawnAdapter, withdrawal_of

router = APIRouter(prefix="/v1", tags=["registry"])


Service = Annotated[RegistryService, Depends(dependency(RegistryService))]
WITHDRAWAL: dict[int | str, dict[str, object]] = {
    202: {
        "model": WithdrawnAdapter,
        "description": "Recorded, but the bus or replicas could not be reached yet: `withdrawal` tells which",
    }
}


@router.get("/adapters", summary="Versions, newest first")
async def list_adapters(
    *,
    caller: Reader,
    service: Service,
    domain: str | None = None,
    method: Method | None = None,
    status: Status | None = None,
    base_model: Annotated[str | None, Query(description="Name or revision of the base model")] = None,
    active: bool | None = None,
    before: Annotated[int | None, Query(description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> AdapterList:
    if domain is not None:
        caller.reach(domain)
    filters = listing.Filters(domain, method, status, base_model, active)
    async with service.db.acquire(timeout=5) as connection:
        found = await listing.adapters(connection, filters, caller.domain_filter, before, limit)
    return AdapterList(
        adapters=[AdapterView.of(adapter) for _, adapter in found],
        next=found[-1][0] if len(found) == limit else None,
    )


@router.post(
    "/adapters",
    status_code=201,
    summary="Register a PEFT folder",
    openapi_extra=body_rule("max_artifact_bytes", "multipart/form-data") | upload.OPENAPI,
)
async def register_adapter(request: Request, response: Response, caller: Writer, service: Service) -> AdapterDetails:
    adapter = await upload.register_upload(request, caller, service)
    response.headers["Location"] = f"/v1/adapters/{adapter.adapter_id}"
    return await _details(service, adapter)


@router.post(
    "/adapters/import",
    status_code=201,
    summary="Register an adapter from files in another form, an archive, a bucket or a hub",
    openapi_extra=body_rule("max_artifact_bytes", "multipart/form-data") | endpoint.OPENAPI,
    responses=endpoint.RESPONSES,
)
async def import_adapter(request: Request, response: Response, caller: Writer, service: Service) -> AdapterDetails:
    adapter = await endpoint.register_import(request, caller, service)
    response.headers["Location"] = f"/v1/adapters/{adapter.adapter_id}"
    return await _details(service, adapter)


@router.get("/adapters/{adapter_id}", summary="Everything known of a version")
async def get_adapter(adapter_id: str, caller: Reader, service: Service) -> AdapterDetails:
    async with service.db.acquire(timeout=5) as connection:
        adapter = await visible(connection, adapter_id, caller)
    return await _details(service, adapter)


@router.get("/adapters/{adapter_id}/provenance", summary="The digest chain of a version")
async def get_provenance(adapter_id: str, caller: Reader, service: Service) -> Provenance:
    async with service.db.acquire(timeout=5) as connection:
        adapter = await visible(connection, adapter_id, caller)
        return Provenance.of(
            adapter,
            await versions.evaluations_of(connection, adapter_id),
            await usage.replicas_of(connection, adapter_id),
            await usage.usage_of(connection, adapter_id),
        )


@router.get("/adapters/{adapter_id}/audit", summary="Who did what with a version, when and why")
async def get_audit(adapter_id: str, caller: Reader, service: Service) -> AuditView:
    async with service.db.acquire(timeout=5) as connection:
        await visible(connection, adapter_id, caller)
        return AuditView.of(await listing.trail(connection, adapter_id))


@router.get("/adapters/{adapter_id}/evaluations", summary="Every score of a version, oldest first")
async def get_evaluations(adapter_id: str, caller: Reader, service: Service) -> dict[str, list[EvaluationView]]:
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
    adapter_id: str, caller: Reader, service: Service, accept: Annotated[str, Header()] = ""
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
async def get_model_card(adapter_id: str, caller: Reader, service: Service) -> Response:
    training = await _training(service, adapter_id, caller)
    if training.model_card is None:
        raise Problem(404, "No model card", f"{adapter_id} was trained before trainers wrote one; its report is there")
    return _served(await service.blobs.get(training.model_card), "text/markdown; charset=utf-8")


@router.get("/adapters/{adapter_id}/manifest", summary="What a catalogue says of a version, and the forms it has")
async def get_manifest(adapter_id: str, caller: Reader, service: Service) -> Manifest:
    async with service.db.acquire(timeout=5) as connection:
        return Manifest.of(await visible(connection, adapter_id, caller))


@router.post("/adapters/{adapter_id}/approve", summary="Let a version serve; where the policy says so it does at once")
async def approve(adapter_id: str, body: Reason, caller: Approver, service: Service) -> AdapterDetails:
    return await _decide(service, adapter_id, caller, body, "approve")


@router.post("/adapters/{adapter_id}/reject", summary="Never let a version serve", responses=WITHDRAWAL)
async def reject(
    adapter_id: str, body: Reason, caller: Approver, service: Service, response: Response
) -> WithdrawnAdapter:
    details = await _decide(service, adapter_id, caller, body, "reject")
    return await _withdrawn(service, details, row_of(v1.Rejected), response)


@router.post("/adapters/{adapter_id}/activate", summary="Make an approved version its family's answer")
async def activate(adapter_id: str, body: Reason, caller: Writer, service: Service) -> AdapterDetails:
    return await _decide(service, adapter_id, caller, body, "activate")


@router.post("/adapters/{adapter_id}/deactivate", summary="Take a version out of service", responses=WITHDRAWAL)
async def deactivate(
    adapter_id: str, body: Reason, caller: Writer, service: Service, response: Response
) -> WithdrawnAdapter:
    details = await _decide(service, adapter_id, caller, body, "deactivate")
    return await _withdrawn(service, details, row_of(v1.AdapterDeactivated), response)


@router.get("/policies/{domain}", summary="The approval policy of a domain")
async def get_policy(domain: DomainName, caller: Reader, service: Service) -> PolicyBody:
    caller.reach(domain)
    async with service.db.acquire(timeout=5) as connection:
        return PolicyBody.model_validate(await versions.find_policy(connection, domain))


@router.put("/policies/{domain}", summary="Set the approval policy of a domain")
async def put_policy(domain: DomainName, body: PolicyBody, caller: Admin, service: Service) -> PolicyBody:
    caller.reach(domain)
    try:
        policy = body.policy()
    except InvalidPolicy as error:
        raise Problem(422, "Invalid policy", str(error), field=error.field) from error
    now = datetime.now(UTC)
    async with service.transaction() as tx:
        await versions.lock_policy(tx.connection, domain)
        before = await versions.find_policy(tx.connection, domain)
        await versions.save_policy(tx.connection, domain, policy, caller.subject, now)
        act = Act(caller.subject, now, "policy set")
        entry = AuditEntry(f"policy/{domain}", "policy_set", act, _plain(before), _plain(policy), 0)
        await versions.add_audit(tx.connection, domain, entry)
    return PolicyBody.model_validate(policy)


@router.get("/policies/{domain}/audit", summary="Who changed a domain's policy, when and from what to what")
async def get_policy_audit(domain: DomainName, caller: Reader, service: Service) -> AuditView:
    caller.reach(domain)
    async with service.db.acquire(timeout=5) as connection:
        return AuditView.of(await listing.trail(connection, f"policy/{domain}"))


@router.get("/refusals", summary="Finished trainings that could not be registered, and why")
async def list_refusals(
    caller: Reader,
    service: Service,
    domain: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> RefusalList:
    if domain is not None:
        caller.reach(domain)
    async with service.db.acquire(timeout=5) as connection:
        return RefusalList.of(await listing.refusals(connection, domain, caller.domain_filter, limit))


@router.get("/statistics", summary="Counts of versions, answers and ratings by domain")
async def get_statistics(caller: Reader, service: Service) -> Statistics:
    reached = caller.domain_filter
    async with service.db.acquire(timeout=5) as connection:
        return Statistics.of(await listing.counts(connection, reached), await listing.service(connection, reached))


async def _decide(
    service: RegistryService,
    adapter_id: str,
    caller: Caller,
    body: Reason,
    step: Literal["approve", "reject", "activate", "deactivate"],
) -> AdapterDetails:
    act = Act(caller.subject, datetime.now(UTC), body.reason)
    async with service.transaction() as tx:
        adapter = await visible(tx.connection, adapter_id, caller)
        made_of = adapter.made_of
        family = await record.lock(tx, made_of.domain, made_of.method)
        policy = await versions.find_policy(tx.connection, made_of.domain)
        try:
            change = _transition(step, family, adapter_id, act, policy)
        except NotAllowed as error:
            raise Problem(409, "Not allowed", str(error), field="status") from error
        await record.save(tx, family, change)
    return await _details(service, change.family.find(adapter_id) or adapter)


async def _withdrawn(
    service: RegistryService, details: AdapterDetails, row: Row, response: Response
) -> WithdrawnAdapter:
    withdrawal = await withdrawal_of(service, details.adapter_id, row)
    if not withdrawal.complete:
        response.status_code = 202
    return WithdrawnAdapter(**dict(details), withdrawal=withdrawal)


def _transition(step: str, family: Family, adapter_id: str, act: Act, policy: Policy) -> Change:
    match step:
        case "approve":
            return domain.approve(family, adapter_id, act, policy)
        case "reject":
            return domain.reject(family, adapter_id, act)
        case "activate":
            return domain.activate(family, adapter_id, act)
        case _:
            return domain.deactivate(family, adapter_id, act)


async def _details(service: RegistryService, adapter: Adapter) -> AdapterDetails:
    async with service.db.acquire(timeout=5) as connection:
        return AdapterDetails.with_service(
            adapter,
            await usage.usage_of(connection, adapter.adapter_id),
            await usage.feedback_of(connection, adapter.adapter_id),
            await usage.replicas_of(connection, adapter.adapter_id),
        )


def _plain(policy: Policy) -> dict[str, object]:
    return PolicyBody.model_validate(policy).model_dump(mode="json")


async def _training(service: RegistryService, adapter_id: str, caller: Caller) -> Training:
    async with service.db.acquire(timeout=5) as connection:
        adapter = await visible(connection, adapter_id, caller)
    training = adapter.made_of.training
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
