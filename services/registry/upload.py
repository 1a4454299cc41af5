"""A PEFT folder that comes over HTTP: received within bounds, checked, converted, stored, registered."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.datastructures import FormData, UploadFile

from fleet_events import v1
from fleet_events.text import Text
from fleet_events.v1 import Bump, DomainName, Method
from fleet_kit.auth import Caller
from fleet_kit.errors import Problem
from services.registry import checkpoint, domain, quota, repository
from services.registry.base_models import BaseModels, BaseModelUnavailable, WrongBaseModel
from services.registry.checkpoint import CannotServe
from services.registry.family import Adapter, Submission, adapter_id, family_id
from services.registry.parts import RegistryService
from services.registry.peft_config import PeftConfig
from services.registry.store import versions
from services.registry.transition import Act, DuplicateVersion
from services.registry.version import InvalidVersion, SemVer

PICKLES = ("adapter_model.bin", "adapter_model.pt")
"""What older tools write in place of the safetensors file."""
MAX_CONFIG_BYTES = 4 << 20  # what lora_core.interop reads
MAX_FILES = 256
"""A trainer's folder: two of them are kept, the others are passed over."""


class UploadFields(BaseModel):
    """The fields beside the files. Absent ones are computed: version, method and base model."""

    model_config = ConfigDict(extra="forbid")

    domain: DomainName
    method: Method | None = None
    version: Text = ""
    bump: Bump | None = None
    base_model: Text = ""
    base_model_revision: Text = ""
    description: Text = Field(default="", max_length=2000)
    example_prompts: tuple[Text, ...] = Field(default=(), max_length=64)
    golden_dataset_id: Text = ""
    reason: Text = Field(default="", max_length=2000)

    @field_validator("version")
    @classmethod
    def _semver(cls, version: str) -> str:
        if version:
            try:
                SemVer.parse(version)
            except InvalidVersion as error:
                raise ValueError(str(error)) from error
        return version


BUMP_SCHEMA = {"type": "string", "enum": list(Bump)}
OPENAPI = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["domain", "files"],
                    "properties": UploadFields.model_json_schema(ref_template="#/components/schemas/{model}")[
                        "properties"
                    ]
                    | {
                        "method": {"type": "string", "enum": list(Method)},
                        "bump": BUMP_SCHEMA,
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": f"{checkpoint.CONFIG} and {checkpoint.WEIGHTS} of the PEFT folder",
                        },
                    },
                }
            }
        },
    }
}


async def register_upload(request: Request, caller: Caller, service: RegistryService) -> Adapter:
    """Register an uploaded PEFT folder.

    Raises Problem: 403 outside the caller's domains, 409 for a version that exists (with `next_version`), 413 over the
    size bound or the domain's quota, 415 for another media type, 422 naming the field for everything that cannot
    serve, 429 for too many at once.
    """
    uploads = service.parts.uploads
    # The body comes before the domain in it is known: until then the caller's own place counts.
    with uploads.one_of(f"subject/{caller.subject}", "files"), service.parts.scratch.folder() as folder:
        form = await form_of(request)
        try:
            fields = _fields(form)
            caller.reach(fields.domain)
            await _save_files(form, folder / "peft")
        finally:
            await form.close()
        if fields.version:
            await refuse_taken(service, fields.domain, _settled(fields, folder / "peft")[1], fields)
        with uploads.one_of(f"domain/{fields.domain}", "domain"):
            await _check_quota(service, fields.domain, folder / "peft")
            submission = await _submit(fields, folder, caller, service)
        act = Act(caller.subject, datetime.now(UTC), fields.reason or "uploaded")
        async with service.transaction() as tx:
            family = await repository.lock(tx, submission.domain, submission.method)
            try:
                change = domain.register(family, submission, act)
            except DuplicateVersion as error:
                raise conflict(error) from error
            await repository.save(tx, family, change)
    adapter = change.family.find(change.adapter_id)
    if adapter is None:
        raise RuntimeError(f"{change.adapter_id} was registered and is not in its family")
    return adapter


def conflict(error: DuplicateVersion) -> Problem:
    """AM-1.3 over HTTP."""
    return Problem(
        409,
        "Version exists",
        str(error),
        field="version",
        adapter_id=error.taken,
        next_version=str(error.suggested),
    )


async def form_of(request: Request) -> FormData:
    """The form of a request; raises Problem 415 for another media type."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Problem(
            415, "Unsupported media type", "send the PEFT folder's files as multipart/form-data in field 'files'"
        )
    return await request.form(max_files=MAX_FILES, max_fields=128)


def _fields(form: FormData) -> UploadFields:
    try:
        return UploadFields.model_validate(given_fields(form))
    except ValidationError as error:
        raise invalid(error) from error


def given_fields(form: FormData) -> dict[str, object]:
    """The fields of a form that are not blank, files left out."""
    given: dict[str, object] = {
        name: value for name, value in form.multi_items() if isinstance(value, str) and name != "example_prompts"
    }
    if prompts := [value for value in form.getlist("example_prompts") if isinstance(value, str)]:
        given["example_prompts"] = prompts
    return {name: value for name, value in given.items() if value != ""}


def invalid(error: ValidationError) -> Problem:
    """Fields that are not what they should be, each named."""
    faults = [{"field": ".".join(map(str, fault["loc"])), "message": fault["msg"]} for fault in error.errors()]
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return Problem(422, "Invalid request", detail, field=faults[0]["field"], faults=faults)


async def _save_files(form: FormData, folder: Path) -> None:
    await asyncio.to_thread(folder.mkdir)
    sent: set[str] = set()
    for _, part in form.multi_items():
        if not isinstance(part, UploadFile):
            continue
        # Browsers and clients send paths of their own machine; only the last part names the file.
        name = PurePosixPath((part.filename or "").replace("\\", "/")).name
        sent.add(name)
        if name not in {checkpoint.CONFIG, checkpoint.WEIGHTS}:
            continue  # a README, a tokenizer or the trainer's state is not part of the adapter
        if (folder / name).exists():
            raise Problem(422, "Invalid request", f"{name} was sent twice", field="files")
        with (folder / name).open("wb") as file:
            await asyncio.to_thread(shutil.copyfileobj, part.file, file)
    pickled = sorted(sent.intersection(PICKLES))
    if pickled and checkpoint.WEIGHTS not in sent:
        detail = f"{pickled[0]} may hold pickled code, which is never read; send {checkpoint.WEIGHTS}"
        raise Problem(422, "Cannot serve", detail, field="files")
    for name in (checkpoint.CONFIG, checkpoint.WEIGHTS):
        if not (folder / name).is_file():
            raise Problem(422, "Invalid request", f"{name} is missing among the files sent", field="files")
    if (folder / checkpoint.CONFIG).stat().st_size > MAX_CONFIG_BYTES:
        raise Problem(422, "Invalid request", f"{checkpoint.CONFIG} is over {MAX_CONFIG_BYTES} bytes", field="files")


def _settled(fields: UploadFields, folder: Path) -> tuple[PeftConfig, Method]:
    """The configuration in the folder, and the method to register it under."""
    try:
        config = PeftConfig.read(folder)
        return config, config.settle(fields.method)
    except CannotServe as error:
        raise Problem(422, "Cannot serve", str(error), field=error.field) from error


def base_of(config: PeftConfig, sent: str, models: BaseModels) -> str:
    """The base model by its name here: the one that was sent, the one that the folder names, or the first."""
    if sent:
        return sent
    named = [name for name in models.names if config.is_of(name)]
    if not named:
        raise WrongBaseModel(
            "base_model",
            f"the adapter's {checkpoint.CONFIG} names base model {config.base_model}; send base_model="
            f"{' or '.join(models.names)} if that has the same weights",
        )
    return named[0]


async def refuse_taken(service: RegistryService, domain_name: str, method: Method, fields: UploadFields) -> None:
    """Refuse a version that exists before gigabytes are converted in vain; registration checks it again."""
    wanted = SemVer.parse(fields.version)
    async with service.db.acquire(timeout=5) as connection:
        taken = await versions.find_adapter(connection, adapter_id(domain_name, method, wanted))
        known = await versions.family_adapters(connection, family_id(domain_name, method))
    if taken is not None:
        latest = max(adapter.version for adapter in known)
        raise conflict(DuplicateVersion(taken.adapter_id, latest.bump(fields.bump or Bump.PATCH)))


async def _check_quota(service: RegistryService, domain_name: str, folder: Path) -> None:
    size = sum((folder / name).stat().st_size for name in (checkpoint.CONFIG, checkpoint.WEIGHTS))
    async with service.db.acquire(timeout=5) as connection:
        # Kept are the files and the artifact that is made of them.
        await quota.check_stored(connection, domain_name, 2 * size, service.settings.max_uploaded_bytes)


async def _submit(fields: UploadFields, folder: Path, caller: Caller, service: RegistryService) -> Submission:
    models = service.parts.base_models
    config, method = _settled(fields, folder / "peft")
    try:
        pinned = await models.get(base_of(config, fields.base_model, models))
        if fields.base_model_revision:
            await models.check(v1.BaseModel(name=pinned.name, revision=fields.base_model_revision))
        contents = await models.inspector.convert(
            folder / "peft", f"{fields.domain}-{method}", folder / "artifact", pinned.shapes
        )
        models.check_rank(contents)
        artifact = v1.Artifact(
            blob=await service.blobs.put("artifacts", folder / "artifact"),
            rank=contents.rank,
            alpha=contents.alpha,
            target_modules=contents.target_modules,
        )
    except (CannotServe, WrongBaseModel) as error:
        raise Problem(422, "Cannot serve", str(error), field=error.field) from error
    except BaseModelUnavailable as error:
        raise Problem(503, "Base model unavailable", str(error), field="base_model") from error
    except ValidationError as error:
        raise Problem(422, "Invalid request", str(error), field="base_model_revision") from error
    return Submission(
        domain=fields.domain,
        method=method,
        base_model=pinned.reference,
        artifact=artifact,
        checkpoint=await service.blobs.put("checkpoints", folder / "peft" / checkpoint.WEIGHTS),
        checkpoint_config=await service.blobs.put("checkpoints", folder / "peft" / checkpoint.CONFIG),
        by=caller.subject,
        version=SemVer.parse(fields.version) if fields.version else None,
        bump=fields.bump,
        description=fields.description,
        example_prompts=fields.example_prompts,
        golden_dataset_id=fields.golden_dataset_id,
    )
