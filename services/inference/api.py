"""HTTP of inference: the OpenAI API, and feedback on its answers."""

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

import nats.errors
import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from fleet_events.v1 import FeedbackRecorded
from fleet_kit.auth import Caller, require
from fleet_kit.http import service_of
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with

from . import render
from .disconnect import unless_gone
from .errors import BadRequest, Busy, NotFound, UnknownModel
from .generation import Chosen, End, Job, Piece, Sampling
from .generation_ids import unknown_generation
from .hosted import Limits
from .parts import InferenceParts, InferenceService
from .resolution import AUTO, reaches, visible
from .schemas import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    FeedbackAccepted,
    FeedbackRequest,
)
from .schemas import Sampling as SamplingFields

log = structlog.get_logger()
router = APIRouter()
_ANSWERS = answers_with("application/json", "text/event-stream")
_PROMPTS = body_rule(4 << 20)
"""Conversations and batches of texts of the longest contexts."""


def _service(request: Request) -> InferenceService:
    service: InferenceService = service_of(request)
    return service


def _parts(request: Request) -> InferenceParts:
    service: InferenceService = service_of(request)
    parts = service.made
    if parts is None or not parts.projection.caught_up.is_set():
        raise Busy("the server is starting; try again.", code="starting", retry_after=2)
    return parts


ThisService = Annotated[InferenceService, Depends(_service)]
Parts = Annotated[InferenceParts, Depends(_parts)]
Generates = Annotated[Caller, Depends(require("generate"))]


def _asks(caller: Generates, parts: Parts) -> Caller:
    parts.rates.take(caller.subject)
    return caller


Asks = Annotated[Caller, Depends(_asks)]
Judges = Annotated[Caller, Depends(require("feedback"))]


@router.get("/v1/models")
async def models(caller: Generates, parts: Parts) -> JSONResponse:
    """What ``model`` may be: the base model, the adapters that this caller may use, their families, ``auto``."""
    return JSONResponse({"object": "list", "data": _models(caller, parts)})


@router.get("/v1/models/{name}")
async def model(name: str, caller: Generates, parts: Parts) -> JSONResponse:
    """One of them."""
    for one in _models(caller, parts):
        if one["id"] == name:
            return JSONResponse(one)
    raise NotFound(f"model {name!r} does not exist or you have no access to it.", code="model_not_found", param="model")


@router.post("/v1/chat/completions", openapi_extra=_PROMPTS, responses=_ANSWERS)
async def chat(body: ChatRequest, request: Request, caller: Asks, parts: Parts) -> Response:
    """Answers a conversation, whole or as server-sent events."""
    chosen = await _choose(body, body.query, request, caller, parts)
    if isinstance(chosen, Response):
        return chosen
    vocabulary = chosen.hosted.vocabulary
    prompt_ids = vocabulary.of_chat([(one.role, one.text) for one in body.messages])
    sampling = _sampling(body, body.max_completion_tokens or body.max_tokens, len(prompt_ids), chosen.hosted.limits)
    generation_id = parts.generator.ids.new(chosen.adapter_id)
    form = render.Chat(
        id=generation_id,
        model=body.model,
        provenance=chosen.provenance,
        tokenizer=vocabulary,
        logprobs=body.logprobs,
    )
    job = Job(generation_id, chosen, prompt_ids, sampling, caller, body.workflow, head_start=-body.priority)
    return await _answer(body, form, job, request, parts)


@router.post("/v1/completions", openapi_extra=_PROMPTS, responses=_ANSWERS)
async def completions(body: CompletionRequest, request: Request, caller: Asks, parts: Parts) -> Response:
    """Continues a text. ``echo`` with ``logprobs`` and ``max_tokens`` 0 gives the likelihood of the text itself."""
    if body.stream and body.echo:
        raise BadRequest("echo cannot be streamed; set stream to false.", code="invalid_value", param="echo")
    if isinstance(body.prompt, str):
        query = body.prompt
    elif body.model == AUTO:
        raise BadRequest("the router reads text: give the prompt as a string.", code="invalid_value", param="prompt")
    else:
        query = ""
    chosen = await _choose(body, query, request, caller, parts)
    if isinstance(chosen, Response):
        return chosen
    vocabulary = chosen.hosted.vocabulary
    read = vocabulary.of_text(body.prompt) if isinstance(body.prompt, str) else vocabulary.of_ids(body.prompt)
    prompt_ids, offsets = read
    sampling = _sampling(body, body.max_tokens, len(prompt_ids), chosen.hosted.limits)
    generation_id = parts.generator.ids.new(chosen.adapter_id)
    echoed: render.Echo | None = None
    if body.echo:
        scored = (
            await parts.generator.likelihoods(chosen, prompt_ids)
            if body.logprobs is not None and len(prompt_ids) > 1
            else []
        )
        echoed = render.Echo(prompt_ids, [None, *scored], offsets)
    form = render.Completion(
        id=generation_id,
        model=body.model,
        provenance=chosen.provenance,
        tokenizer=vocabulary,
        logprobs=body.logprobs is not None,
        echo=echoed,
    )
    if sampling.max_tokens == 0:
        return JSONResponse(form.whole([], End("length", 0), len(prompt_ids)))
    job = Job(generation_id, chosen, prompt_ids, sampling, caller, body.workflow, head_start=-body.priority)
    return await _answer(body, form, job, request, parts)


@router.post("/v1/embeddings", openapi_extra=_PROMPTS)
async def embeddings(body: EmbeddingRequest, request: Request, caller: Asks, parts: Parts) -> Response:
    """Vectors of length 1: of the sentence model, or of the base model with the adapters that ``model`` names."""
    embedder, said = parts.embedder, {}
    if embedder is not None and body.model == embedder.name:
        parts.gate.require_open()
        vectors = await embedder.embed(body.texts)
    else:
        chosen = await _embedding_model(body, caller, parts)
        if (elsewhere := await _elsewhere(request, chosen, parts)) is not None:
            return elsewhere
        vectors = await parts.generator.embed(chosen, body.texts)
        said = {"lorafleet": chosen.provenance.model_dump()}
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if body.encoding_format == "base64"
            else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    return JSONResponse({"object": "list", "model": body.model, "data": data, **said})


async def _embedding_model(body: EmbeddingRequest, caller: Caller, parts: InferenceParts) -> Chosen:
    if body.model == AUTO:
        raise BadRequest(
            "embeddings need a model by name: vectors of several are not comparable.",
            code="invalid_value",
            param="model",
        )
    try:
        chosen = await parts.generator.choose(body.model, "", caller)
    except UnknownModel as error:
        if parts.embedder is None:
            raise
        raise NotFound(
            f"{error.message} For sentence vectors: {parts.embedder.name!r}.", code=error.code, param=error.param
        ) from None
    vocabulary, most = chosen.hosted.vocabulary, chosen.hosted.limits.max_prompt_tokens
    too_long = sum(len(vocabulary.of_text(text)[0]) > most for text in body.texts)
    if too_long:
        raise BadRequest(
            f"{too_long} texts have more than {most} tokens.", code="context_length_exceeded", param="input"
        )
    return chosen


@router.post("/v1/feedback", status_code=202)
async def feedback(body: FeedbackRequest, caller: Judges, parts: Parts, service: ThisService) -> FeedbackAccepted:
    """What somebody thinks of an answer: becomes a FeedbackRecorded, acknowledged by the bus before this returns."""
    adapter_id = parts.generator.ids.adapter_id(body.generation_id)
    record = parts.projection.catalogue.records.get(adapter_id)
    domain = record.domain if record else ""
    if adapter_id and not reaches(caller, domain):
        raise unknown_generation(body.generation_id)
    event = FeedbackRecorded(
        generation_id=body.generation_id,
        adapter_id=adapter_id,
        domain=domain,
        rating=body.rating,
        comment=body.comment,
        by=caller.subject,
    )
    try:
        await service.publish(event, adapter_id or body.generation_id)
    except (nats.errors.Error, OSError) as error:
        raise Busy("the bus is away; send it again.", code="bus_unavailable", retry_after=2) from error
    return FeedbackAccepted(generation_id=body.generation_id, adapter_id=adapter_id or None, rating=body.rating)


async def _choose(
    body: SamplingFields, query: str, request: Request, caller: Caller, parts: InferenceParts
) -> Chosen | Response:
    """Who answers here, or the answer of another replica."""
    chosen = await parts.generator.choose(body.model, query, caller, body.fallback)
    if (elsewhere := await _elsewhere(request, chosen, parts)) is not None:
        return elsewhere
    return await parts.generator.secure(chosen, query, caller)


async def _elsewhere(request: Request, chosen: Chosen, parts: InferenceParts) -> Response | None:
    """The answer of another replica; None if it is given here. Raises `Busy` if it would be and this one is drained."""
    if (answer := await parts.forwarding.answer(request, chosen)) is None:
        parts.gate.require_open()
    return answer


async def _answer(
    body: SamplingFields, form: render.Form, job: Job, request: Request, parts: InferenceParts
) -> Response:
    pieces = parts.generator.answer(job)
    if not body.stream:
        async with aclosing(pieces):
            collected = await unless_gone(request, _collect(pieces))
        if collected is None:
            return Response(status_code=499)
        got, end = collected
        return JSONResponse(form.whole(got, end, len(job.prompt_ids)))
    # What can be refused is refused before the first byte, with its own status.
    first = await unless_gone(request, anext(pieces))
    if first is None:
        await pieces.aclose()
        return Response(status_code=499)

    async def events() -> AsyncIterator[str]:
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        async with aclosing(pieces):
            for chunk in form.begin():
                yield chunk
            try:
                async for piece in _from(first, pieces):
                    yield form.chunk(piece)
                    if isinstance(piece, End) and include_usage:
                        yield form.usage_chunk(piece, len(job.prompt_ids))
            except Exception as error:
                log.exception("stream_failed", generation_id=job.generation_id)
                yield form.error(error)
                return
            yield form.done()

    return StreamingResponse(
        events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )


async def _from(first: Piece | End, rest: AsyncIterator[Piece | End]) -> AsyncIterator[Piece | End]:
    yield first
    async for piece in rest:
        yield piece


async def _collect(pieces: AsyncIterator[Piece | End]) -> tuple[list[Piece], End]:
    got: list[Piece] = []
    async for piece in pieces:
        if isinstance(piece, End):
            return got, piece
        got.append(piece)
    raise AssertionError("an answer ended without its end")


def _sampling(body: SamplingFields, max_tokens: int | None, prompt_tokens: int, limits: Limits) -> Sampling:
    if prompt_tokens > limits.max_prompt_tokens:
        raise BadRequest(
            f"the prompt has {prompt_tokens} tokens, at most {limits.max_prompt_tokens} are taken.",
            code="context_length_exceeded",
            param="messages" if isinstance(body, ChatRequest) else "prompt",
        )
    wanted = limits.default_completion_tokens if max_tokens is None else max_tokens
    allowed = min(limits.max_completion_tokens, limits.context - prompt_tokens)
    if max_tokens is None:
        wanted = min(wanted, allowed)
    if wanted > allowed or (wanted < 1 and not isinstance(body, CompletionRequest)):
        raise BadRequest(
            f"max_tokens is {wanted}, it must be from 1 to {allowed} for this prompt.",
            code="invalid_value",
            param="max_tokens",
        )
    return Sampling(wanted, body.temperature, body.top_p, body.seed, body.stops, body.ignore_eos)


def _models(caller: Caller, parts: InferenceParts) -> list[dict[str, object]]:
    catalogue, bases = parts.projection.catalogue, parts.hosting.bases
    active = {adapter.adapter_id: family for family, adapter in catalogue.active.items()}
    entries = [
        render.model_entry(base.name, parts.started, root=base.name, base_model_revision=base.revision)
        for base in bases
    ]
    names = {base.revision: base.name for base in bases}
    for adapter in visible(catalogue, bases, caller):
        parent = names[adapter.base_model.revision]
        details = render.adapter_details(adapter, active=adapter.adapter_id in active)
        entries.append(render.model_entry(adapter.adapter_id, parts.started, root=parent, parent=parent, **details))
        if adapter.adapter_id in active:
            entries.append(
                render.model_entry(adapter.family, parts.started, root=adapter.adapter_id, parent=parent, **details)
            )
    entries.append(render.model_entry("auto", parts.started, root="auto"))
    return entries
