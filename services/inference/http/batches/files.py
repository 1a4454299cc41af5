"""HTTP of `/v1/files`: files of requests for batches, and their outputs."""

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from fleet_kit.auth import Caller
from fleet_kit.errors import BlobMissing
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with
from services.inference.batches.records import FileRecord, Owner, new_id
from services.inference.batches.store import reachable
from services.inference.errors import BadRequest, Conflict, NotFound, TooLarge
from services.inference.http.access import Generates, LimitedCaller, Parts, ThisService
from services.inference.http.batches.forms import FileForm, page
from services.inference.parts import InferenceParts
from services.inference.settings import InferenceSettings

router = APIRouter()
_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": ["batch"]},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
    },
}
_BODY: dict[str, Any] = body_rule("batch_upload_bytes", "multipart/form-data") | {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}
_NESTED = re.compile(r"(\w+)\[(\w+)\]")
_CHUNK = 64 * 1024


@router.post("/v1/files", openapi_extra=_BODY)
async def create_file(request: Request, caller: LimitedCaller, parts: Parts, service: ThisService) -> JSONResponse:
    """Store a file of requests for a batch: JSON lines."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest("send the file as multipart/form-data.", code="invalid_value", param="file")
    form = await request.form(max_files=1, max_fields=8)
    try:
        fields, file = _fields(form), form.get("file")
        if not isinstance(file, UploadFile):
            raise BadRequest("the file is missing.", code="missing_required_parameter", param="file")
        with tempfile.TemporaryDirectory(prefix="lorafleet-upload-") as folder, reachable():
            path = Path(folder) / "file"
            lines = await asyncio.to_thread(_save, file.file, path)
            await _check(path.stat().st_size, lines, caller, parts, service.settings)
            now, file_id = int(time.time()), new_id("file-")
            kept = (
                fields.expires_after.seconds
                if fields.expires_after
                else round(service.settings.batch_files_days * 86400)
            )
            record = FileRecord(
                id=file_id,
                owner=Owner.of(caller),
                blob=await parts.batches.put(file_id, path),
                filename=(file.filename or "file")[:255],
                purpose=fields.purpose,
                created_at=now,
                expires_at=now + min(kept, round(service.settings.batch_files_days * 86400)),
            )
            await parts.batches.add_file(record)
    finally:
        await form.close()
    return JSONResponse(record.shown())


@router.get("/v1/files")
async def list_files(
    caller: Generates,
    parts: Parts,
    *,
    after: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=100)] = None,
) -> JSONResponse:
    """The caller's own files."""
    with reachable():
        found = await parts.batches.files(caller, time.time())
    wanted = [one for one in found if purpose in (None, one.purpose)]
    return JSONResponse(page(wanted if order == "asc" else wanted[::-1], after, limit))


@router.get("/v1/files/{file_id}")
async def retrieve_file(file_id: str, caller: Generates, parts: Parts) -> JSONResponse:
    """One of the caller's own files."""
    with reachable():
        return JSONResponse((await parts.batches.file(file_id, caller, time.time())).shown())


@router.get("/v1/files/{file_id}/content", responses=answers_with("application/octet-stream"))
async def file_content(file_id: str, caller: Generates, parts: Parts) -> Response:
    """What a file holds."""
    with reachable(), tempfile.TemporaryDirectory(prefix="lorafleet-content-") as folder:
        record = await parts.batches.file(file_id, caller, time.time())
        try:
            path = await parts.batches.fetch(record.blob, Path(folder) / "content")
        except BlobMissing as error:
            message = f"the content of file {file_id!r} is not kept any more."
            raise NotFound(message, code="file_not_found", param="file_id") from error
        content = path.open("rb")  # it outlives its name
    headers = {"Content-Length": str(record.blob.bytes)}
    return StreamingResponse(_chunks(content), media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}")
async def delete_file(file_id: str, caller: Generates, parts: Parts) -> JSONResponse:
    """Delete a file of the caller's own, unless a batch that has not ended reads it."""
    with reachable():
        record = await parts.batches.file(file_id, caller, time.time())
        if any(one.input_file_id == file_id and not one.ended for one in await parts.batches.batches(caller)):
            message = f"a batch that has not ended reads file {file_id!r}; cancel the batch first."
            raise Conflict(message, code="file_in_use", param="file_id")
        await parts.batches.drop_file(record)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


def _fields(form: FormData) -> FileForm:
    given: dict[str, Any] = {}
    for name, value in form.multi_items():
        if nested := _NESTED.fullmatch(name):
            given.setdefault(nested[1], {})[nested[2]] = value
        elif name != "file":
            given[name] = value
    try:
        return FileForm.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        raise BadRequest(f"{name}: {fault['msg']}", code="invalid_value", param=name) from error


def _save(content: BinaryIO, path: Path) -> int:
    """Write it to a file; returns how many lines it has."""
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


async def _check(size: int, lines: int, caller: Caller, parts: InferenceParts, settings: InferenceSettings) -> None:
    """Raises `TooLarge`, `BadRequest` or `Conflict` for what is beyond the bounds."""
    if size > settings.batch_file_bytes:
        message = f"the file has {size} bytes, at most {settings.batch_file_bytes} are taken."
        raise TooLarge(message, code="file_too_large", param="file")
    if not size:
        raise BadRequest("the file is empty.", code="empty_file", param="file")
    if lines > settings.batch_lines:
        message = f"the file has {lines} lines, at most {settings.batch_lines} are taken."
        raise BadRequest(message, code="too_many_lines", param="file")
    held = await parts.batches.files(caller, time.time())
    if len(held) >= settings.batch_files:
        raise Conflict(f"you have {len(held)} files; delete some first.", code="too_many_files", param="file")
    if sum(one.blob.bytes for one in held) + size > settings.batch_stored_bytes:
        message = f"your files would have more than {settings.batch_stored_bytes} bytes; delete some first."
        raise TooLarge(message, code="storage_exhausted", param="file")


async def _chunks(content: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while chunk := await asyncio.to_thread(content.read, _CHUNK):
            yield chunk
    finally:
        content.close()
