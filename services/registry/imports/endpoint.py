"""An adapter from elsewhere becomes a version: received or fetched within bounds, converted, checked, registered."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fastapi import Request
from pydantic import Field, SecretStr, ValidationError
from starlette.datastructures import FormData, UploadFile

from fleet_events import v1
from fleet_events.strict_json import read_json
from fleet_events.text import Text
from fleet_events.v1 import Method
from fleet_kit.auth import Caller
from fleet_kit.errors import Problem
from fleet_kit.http_openapi import PROBLEM_CONTENT
from services.registry import checkpoint, domain, quota, repository, upload
from services.registry.base_models import BaseModelUnavailable, Pinned, WrongBaseModel
from services.registry.checkpoint import CannotServe
from services.registry.family import Adapter, Submission
from services.registry.imports import objects
from services.registry.imports.adoption import Adopted, BaseFolder
from services.registry.imports.names import EXPECTED, BadPath, inner_path, is_archive, is_wanted, pickled
from services.registry.imports.source import CannotFetch, Fetched, HubSource, Origin, parse
from services.registry.parts import RegistryService
from services.registry.peft_config import PeftConfig
from services.registry.transition import Act, DuplicateVersion
from services.registry.version import SemVer

MAX_FIELDS_BYTES = 1 << 20


class ImportFields(upload.UploadFields):
    """As for an upload. `source` in place of files; the method is the adapter's own where none is given."""

    method: Method | None = None
    source: Text = Field(default="", max_length=2000, description="s3://… or OWNER/NAME[@REVISION][:PATH] of a hub")
    hub_token: SecretStr | None = Field(default=None, description="For a private repository; used once, never kept")


def _openapi() -> dict[str, object]:
    schema = ImportFields.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = schema["properties"] | {
        "method": {"type": "string", "enum": list(Method)},
        "bump": upload.BUMP_SCHEMA,
    }
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": EXPECTED}
    json = {"type": "object", "required": ["domain", "source"], "properties": properties}
    form = {"type": "object", "required": ["domain"], "properties": properties | {"files": files}}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": json}}
    return {"requestBody": {"required": True, "content": content}}


OPENAPI = _openapi()
RESPONSES: dict[int | str, dict[str, object]] = {
    502: {"description": "The hub failed, or sent other bytes than it listed", "content": PROBLEM_CONTENT},
    504: {"description": "The hub was too slow", "content": PROBLEM_CONTENT},
}


@dataclass(frozen=True, slots=True)
class _Converted:
    """What the inspection made: the adapter's files, and where it came from."""

    adopted: Adopted
    source: str
    artifact: Path
    peft: Path


async def register_import(request: Request, caller: Caller, service: RegistryService) -> Adapter:
    """Register an adapter from files in any known form, or from where `source` names.

    Raises Problem: 403 outside the caller's domains, 409 for a version that exists, 413 over the size bound or the
    domain's quota, 415 for another media type, 422 naming the field for what cannot be fetched or cannot serve, 429
    for too many at once, 502 and 504 where the hub fails or is too slow.
    """
    named = await _named(request, caller) if _is_json(request) else None
    uploads = service.parts.uploads
    with uploads.one_of(f"subject/{caller.subject}", "files"), service.parts.scratch.folder() as folder:
        await asyncio.to_thread((folder / "given").mkdir)
        fields = named or await _receive(request, folder / "given", caller)
        if fields.version and fields.method:
            await upload.refuse_taken(service, fields.domain, fields.method, fields)
        with uploads.one_of(f"domain/{fields.domain}", "domain"):
            submission = await _submission(fields, folder, caller, service)
        act = Act(caller.subject, datetime.now(UTC), fields.reason or f"imported from {_source(submission)}")
        async with service.transaction() as tx:
            family = await repository.lock(tx, submission.domain, submission.method)
            try:
                change = domain.register(family, submission, act)
            except DuplicateVersion as error:
                raise upload.conflict(error) from error
            await repository.save(tx, family, change)
    adapter = change.family.find(change.adapter_id)
    if adapter is None:
        raise RuntimeError(f"{change.adapter_id} was registered and is not in its family")
    return adapter


def _source(submission: Submission) -> str:
    return submission.origin.source if submission.origin else "upload"


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def _named(request: Request, caller: Caller) -> ImportFields:
    """The fields of a JSON body, which names a source."""
    fields = _valid(await _json(request))
    caller.reach(fields.domain)
    if not fields.source:
        raise Problem(422, "Invalid request", "source is missing: name one, or send files as a form", field="source")
    return fields


async def _receive(request: Request, to: Path, caller: Caller) -> ImportFields:
    """The fields of a form, and the files that came beside them in the folder `to`."""
    form = await upload.form_of(request)
    try:
        fields = _valid(upload.given_fields(form))
        caller.reach(fields.domain)
        names = await _save(form, to)
    finally:
        await form.close()
    if bool(names) == bool(fields.source):
        found = "both files and a source" if names else "neither files nor a source"
        raise Problem(422, "Invalid request", f"{found}; send one of the two", field="source" if names else "files")
    return fields


async def _json(request: Request) -> dict[str, object]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FIELDS_BYTES:
            raise Problem(413, "Body too large", f"the fields are over {MAX_FIELDS_BYTES} bytes", field="body")
    try:
        given = read_json(bytes(body))
    except ValueError as error:
        raise Problem(422, "Invalid request", f"body: {error}", field="body") from error
    if not isinstance(given, dict):
        raise Problem(422, "Invalid request", "body: expected a JSON object", field="body")
    return {name: value for name, value in given.items() if value is not None}


def _valid(given: dict[str, object]) -> ImportFields:
    try:
        return ImportFields.model_validate(given)
    except ValidationError as error:
        raise upload.invalid(error) from error


async def _save(form: FormData, to: Path) -> list[str]:
    """Write the wanted files; returns their names. Their own folders are kept where a client sends them."""
    sent: list[str] = []
    written: list[Path] = []
    for _, part in form.multi_items():
        if not isinstance(part, UploadFile):
            continue
        name = part.filename or ""
        sent.append(name)
        if not (is_archive(name) or is_wanted(name.replace("\\", "/").rpartition("/")[2])):
            continue  # a README or a tokenizer is not part of the adapter
        try:
            target = to.joinpath(*inner_path(name).parts)
        except BadPath as error:
            raise Problem(422, "Invalid request", str(error), field="files") from error
        if target in written:
            raise Problem(422, "Invalid request", f"{name[:200]} was sent twice", field="files")
        await asyncio.to_thread(_write, part, target)
        written.append(target)
    if sent and not written:
        if found := pickled(sent):
            detail = f"{found[:200]} may hold pickled code, which is never read; send {checkpoint.WEIGHTS}"
            raise Problem(422, "Cannot serve", detail, field="files")
        detail = f"no adapter among the files sent ({', '.join(sent)[:300]}), expected {EXPECTED}"
        raise Problem(422, "Invalid request", detail, field="files")
    return [path.name for path in written]


def _write(part: UploadFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(part.file, file)


async def _submission(fields: ImportFields, folder: Path, caller: Caller, service: RegistryService) -> Submission:
    models = service.parts.base_models
    try:
        pinned = await models.get(fields.base_model or models.names[0])
        if fields.base_model_revision:
            await models.check(v1.BaseModel(name=pinned.name, revision=fields.base_model_revision))
        made = await _convert(fields, folder, pinned, service)
        models.check_rank(made.adopted.contents)
        if made.adopted.form == "peft":
            named = upload.base_of(PeftConfig.read(made.peft), fields.base_model, models)
            if named != pinned.name:
                raise WrongBaseModel("base_model", f"the adapter was made on {named}; send base_model={named}")
    except (CannotServe, WrongBaseModel) as error:
        raise Problem(422, "Cannot serve", str(error), field=error.field) from error
    except BaseModelUnavailable as error:
        raise Problem(503, "Base model unavailable", str(error), field="base_model") from error
    except CannotFetch as error:
        title = "Cannot fetch" if error.status < 500 else "Temporarily unavailable"
        raise Problem(error.status, title, str(error), field="source") from error
    except ValidationError as error:
        raise Problem(422, "Invalid request", str(error), field="base_model_revision") from error
    method = _method(fields.method, made.adopted)
    weights, config = made.peft / checkpoint.WEIGHTS, made.peft / checkpoint.CONFIG
    await _check_quota(service, fields.domain, sum(file.stat().st_size for file in (made.artifact, weights, config)))
    contents = made.adopted.contents
    return Submission(
        domain=fields.domain,
        method=method,
        base_model=pinned.reference,
        artifact=v1.Artifact(
            blob=await service.blobs.put("artifacts", made.artifact),
            rank=contents.rank,
            alpha=contents.alpha,
            target_modules=contents.target_modules,
        ),
        checkpoint=await service.blobs.put("checkpoints", weights),
        checkpoint_config=await service.blobs.put("checkpoints", config),
        by=caller.subject,
        version=SemVer.parse(fields.version) if fields.version else None,
        bump=fields.bump,
        description=fields.description,
        example_prompts=fields.example_prompts,
        golden_dataset_id=fields.golden_dataset_id,
        origin=Origin(made.adopted.form, made.source, made.adopted.files),
    )


async def _convert(fields: ImportFields, folder: Path, pinned: Pinned, service: RegistryService) -> _Converted:
    """Fetch what is to be fetched, unpack what is packed, and have the one adapter in it converted."""
    most = service.settings.max_artifact_bytes
    given = await _fetch(fields, folder / "given", service) if fields.source else Fetched(folder / "given", "upload")
    files = await asyncio.to_thread(_files_below, given.folder)
    await _check_quota(service, fields.domain, sum(path.stat().st_size for path in files))
    place = given.folder
    if archives := [path for path in files if is_archive(path.name)]:
        if len(files) > 1:
            raise CannotServe(
                "files", f"an archive together with other files ({archives[0].name[:200]}); send it alone"
            )
        place = folder / "unpacked"
        await asyncio.to_thread(place.mkdir)
        await service.parts.base_models.inspector.unpack(archives[0], place, most)
    adopted = await service.parts.base_models.inspector.adopt(
        place,
        f"{fields.domain}-{fields.method}" if fields.method else fields.domain,
        folder / "artifact",
        folder / "peft",
        BaseFolder(pinned.folder, pinned.shapes),
    )
    return _Converted(adopted, given.source, folder / "artifact", folder / "peft")


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def _fetch(fields: ImportFields, to: Path, service: RegistryService) -> Fetched:
    source = parse(fields.source)
    if isinstance(source, HubSource):
        token = fields.hub_token.get_secret_value() if fields.hub_token else None
        return await asyncio.to_thread(service.parts.hub.fetch, source, token, to)
    store = objects.DomainObjects(service.blobs, service.settings.s3_bucket, fields.domain)
    return await store.fetch(source, to, most=service.settings.max_artifact_bytes)


def _method(requested: Method | None, adopted: Adopted) -> Method:
    """The method that the files show; raises Problem where another one was requested."""
    shown = next((method for method in (Method.DORA, Method.RSLORA) if method in adopted.variants), None)
    if requested is None:
        return shown or Method.LORA
    if (shown is not None and requested is not shown) or (
        requested in (Method.DORA, Method.RSLORA) and shown is not requested
    ):
        detail = f"{requested} was requested, the adapter is {shown or 'plain LoRA'}; leave the method out"
        raise Problem(422, "Cannot serve", detail, field="method")
    return requested


async def _check_quota(service: RegistryService, domain_name: str, further: int) -> None:
    async with service.db.acquire(timeout=5) as connection:
        await quota.check_stored(connection, domain_name, further, service.settings.max_uploaded_bytes)
