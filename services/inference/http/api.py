"""HTTP of inference: the OpenAI API, and feedback on its answers."""

import base64
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Annotated, TypeVar

import nats.errors
import numpy as np
import numpy.typing as npt
import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from fleet_events.v1 import FeedbackRecorded
from fleet_kit.auth import Caller, require
from fleet_kit.http import dependency
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with
from services.inference.answer_task import AnswerTask
from services.inference.chosen import Chosen
from services.inference.errors import BadRequest, Busy, NotFound, UnknownModel
from services.inference.generation_ids import unknown_generation
from services.inference.http import listings, openai_format
from services.inference.http.answering import answer, wants_usage
from services.inference.http.requested import PromptRequest, of_choice, prompt_request
from services.inference.http.schemas import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    FeedbackAccepted,
    FeedbackRequest,
    GenerationRequest,
)
from services.inference.http.structured import grammar_of
from services.inference.parts import InferenceParts, InferenceService
from services.inference.resolution import AUTO, reaches, visible
from services.inference.router_client import NO_QUERY, Query

log = structlog.get_logger()
F = TypeVar("F", openai_format.Chat, openai_format.Completion)
router = APIRouter()
_ANSWERS = answers_with("application/json", "text/event-stream")
_PROMPTS = body_rule(4 << 20)
"""Conversations and batches of texts of the longest contexts."""


ThisService = Annotated[InferenceService, Depends(dependency(InferenceService))]


async def _parts(service: ThisService) -> InferenceParts:
    if not service.started or not service.parts.projection.caught_up.is_set():
        raise Busy("the server is starting; try again.", code="starting", retry_after=2)
    return service.parts


Parts = Annotated[InferenceParts, Depends(_parts)]
Generates = Annotated[Caller, Depends(require("generate"))]


def _asks(caller: Generates, parts: Parts) -> Caller:
    parts.rates.take(caller.subject)
    return caller


Asks = Annotated[Caller, Depends(_asks)]
Judges = Annotated[Caller, Depends(require("feedback"))]


@router.get("/v1/models")
async def models(caller: Generates, parts: Parts) -> JSONResponse:
    """List what `model` may be: the base model, the adapters that this caller may use, their families, `auto`."""
    return JSONResponse({"object": "list", "data": _models(caller, parts)})


@router.get("/v1/models/{name:path}")
async def model(name: str, caller: Generates, parts: Parts) -> JSONResponse:
    """Describe one model."""
    for one in _models(caller, parts):
        if one["id"] == name:
            return JSONResponse(one)
    raise NotFound(f"model {name!r} does not exist or you have no access to it.", code="model_not_found", param="model")


@router.post("/v1/chat/completions", openapi_extra=_PROMPTS, responses=_ANSWERS)
async def chat(body: ChatRequest, request: Request, caller: Asks, parts: Parts) -> Response:
    """Answer a conversation, whole or as server-sent events."""
    async with AsyncExitStack() as held:
        query = Query(body.user_turns[-1], body.user_turns[:-1])
        chosen = await _choose(body, query, request, caller, parts=parts, held=held)
        if isinstance(chosen, Response):
            return chosen
        ids = await chosen.hosted.vocabulary.of_turns([one.turn for one in body.messages], body.chat_template_kwargs)
        grammar = await grammar_of(body, chosen.hosted.vocabulary)
        prompt = prompt_request(body, body.max_completion_tokens or body.max_tokens, ids, chosen, grammar=grammar)
        tasks = _tasks(body, [prompt], chosen, caller, parts=parts, held=held)
        form = _form(openai_format.Chat, body, tasks[0])
        return await answer(body, form, tasks, [prompt], request=request, generator=parts.generator)


@router.post("/v1/completions", openapi_extra=_PROMPTS, responses=_ANSWERS)
async def completions(body: CompletionRequest, request: Request, caller: Asks, parts: Parts) -> Response:
    """Continue texts. `echo` with `logprobs` and `max_tokens` 0 gives the likelihood of the text itself."""
    async with AsyncExitStack() as held:
        chosen = await _choose(body, _query(body), request, caller, parts=parts, held=held)
        if isinstance(chosen, Response):
            return chosen
        vocabulary, prompts = chosen.hosted.vocabulary, []
        grammar = await grammar_of(body, vocabulary)
        for prompt in body.prompts:
            ids, offsets = vocabulary.of_text(prompt) if isinstance(prompt, str) else vocabulary.of_ids(prompt)
            prompts.append(prompt_request(body, body.max_tokens, ids, chosen, offsets, grammar=grammar))
        tasks = _tasks(body, prompts, chosen, caller, parts=parts, held=held)
        form = _form(openai_format.Completion, body, tasks[0])
        return await answer(body, form, tasks, prompts, request=request, generator=parts.generator)


def _form(kind: type[F], body: ChatRequest | CompletionRequest, first: AnswerTask) -> F:
    """The form in which the answers are written."""
    return kind(
        id=first.generation_id,
        model=body.model,
        provenance=first.chosen.provenance,
        tokens=first.chosen.hosted.vocabulary.bytes,
        top=body.top,
        usage=wants_usage(body),
    )


def _query(body: CompletionRequest) -> Query:
    """The query for the router."""
    match body.prompts:
        case [str() as text]:
            return Query(text)
    if body.model == AUTO:
        raise BadRequest("the router reads one text: give the prompt as it.", code="invalid_value", param="prompt")
    return NO_QUERY


def _tasks(
    body: GenerationRequest,
    prompts: Sequence[PromptRequest],
    chosen: Chosen,
    caller: Caller,
    *,
    parts: InferenceParts,
    held: AsyncExitStack,
) -> list[AnswerTask]:
    """All answers to give: n for each prompt, those of one prompt together. The first takes over what is held."""
    return [
        AnswerTask(
            parts.generator.ids.new(chosen.adapter_id),
            chosen,
            one.ids,
            of_choice(one.sampling, choice),
            caller,
            one.stop,
            body.workflow,
            wait_credit=-body.priority,
            held=held if chosen.fallback_model is not None and not (at or choice) else None,
            first=not (at or choice),
        )
        for at, one in enumerate(prompts)
        for choice in range(body.n)
    ]


@router.post("/v1/embeddings", openapi_extra=_PROMPTS)
async def embeddings(body: EmbeddingRequest, request: Request, caller: Asks, parts: Parts) -> Response:
    """Vectors of length 1: of the sentence model, or of the base model with the adapters that `model` names."""
    embedder, extra = parts.embedder, {}
    if embedder is not None and body.model == embedder.name:
        parts.gate.require_open()
        texts = [one for one in body.inputs if isinstance(one, str)]
        if len(texts) < len(body.inputs):
            raise BadRequest(
                f"{embedder.name!r} reads text, not token ids: send text (LangChain's OpenAIEmbeddings: "
                "check_embedding_ctx_length=False).",
                code="invalid_value",
                param="input",
            )
        vectors = await embedder.embed(texts)
        counted = parts.hosting.all[0].vocabulary  # the sentence model's encoder does not give its token counts
    else:
        chosen = await _embedding_model(body, caller, parts)
        if (elsewhere := await _elsewhere(request, chosen, parts)) is not None:
            return elsewhere
        vectors = await parts.generator.embed(chosen, body.inputs)
        extra = {"lorafleet": chosen.provenance.model_dump()}
        counted = chosen.hosted.vocabulary
    if body.dimensions is not None:
        vectors = _shortened(vectors, body.dimensions)
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
    tokens = sum(counted.count(one) for one in body.inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "model": body.model, "data": data, "usage": usage, **extra})


def _shortened(vectors: npt.NDArray[np.float32], dimensions: int) -> npt.NDArray[np.float32]:
    """The first numbers of each vector, [texts, dimensions], of length 1 again."""
    if dimensions > vectors.shape[1]:
        raise BadRequest(
            f"dimensions is {dimensions}, this model's vectors have {vectors.shape[1]}.",
            code="invalid_value",
            param="dimensions",
        )
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.asarray(cut / np.maximum(lengths, 1e-12), dtype=np.float32)


async def _embedding_model(body: EmbeddingRequest, caller: Caller, parts: InferenceParts) -> Chosen:
    if body.model == AUTO:
        raise BadRequest(
            "embeddings need a model by name: vectors of several are not comparable.",
            code="invalid_value",
            param="model",
        )
    try:
        chosen = await parts.generator.choose(body.model, NO_QUERY, caller)
    except UnknownModel as error:
        if parts.embedder is None:
            raise
        raise NotFound(
            f"{error.message} For sentence vectors: {parts.embedder.name!r}.", code=error.code, param=error.param
        ) from None
    vocabulary, most = chosen.hosted.vocabulary, chosen.hosted.limits.max_prompt_tokens
    counted = [vocabulary.ids_of(one) for one in body.inputs]
    too_long = sum(len(ids) > most for ids in counted)
    if too_long:
        raise BadRequest(
            f"{too_long} texts have more than {most} tokens.", code="context_length_exceeded", param="input"
        )
    for one, ids in zip(body.inputs, counted, strict=True):
        vocabulary.check_ids(ids, "input")
        if not isinstance(one, str):
            vocabulary.check_own(one, "input")
        elif not ids:
            raise BadRequest("a text has no tokens.", code="invalid_value", param="input")
    return chosen


@router.post("/v1/feedback", status_code=202)
async def feedback(body: FeedbackRequest, caller: Judges, parts: Parts, service: ThisService) -> FeedbackAccepted:
    """A rating of an answer: becomes a FeedbackRecorded, acknowledged by the bus before this returns."""
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
        raise Busy("the event bus is unavailable; please retry.", code="bus_unavailable", retry_after=2) from error
    return FeedbackAccepted(generation_id=body.generation_id, adapter_id=adapter_id or None, rating=body.rating)


async def _choose(
    body: GenerationRequest,
    query: Query,
    request: Request,
    caller: Caller,
    *,
    parts: InferenceParts,
    held: AsyncExitStack,
) -> Chosen | Response:
    """Who answers here, or the answer of another replica. held: see `Generator.secure`."""
    standing = f"{caller.subject}\0{body.end_user}"
    chosen = await parts.generator.choose(body.model, query, caller, body.fallback, standing=standing)
    if (elsewhere := await _elsewhere(request, chosen, parts)) is not None:
        return elsewhere
    return await parts.generator.secure(chosen, query, caller, held, -body.priority)


async def _elsewhere(request: Request, chosen: Chosen, parts: InferenceParts) -> Response | None:
    """The answer of another replica; None if it is given here. Raises `Busy` if it would be and this one is drained."""
    if (answer := await parts.forwarding.answer(request, chosen)) is None:
        parts.gate.require_open()
    return answer


def _models(caller: Caller, parts: InferenceParts) -> list[dict[str, object]]:
    catalogue, bases = parts.projection.catalogue, parts.hosting.bases
    active = {adapter.adapter_id: family for family, adapter in catalogue.active.items()}
    entries = [
        listings.model_entry(base.name, parts.started, root=base.name, base_model_revision=base.revision)
        for base in bases
    ]
    names = {base.revision: base.name for base in bases}
    for adapter in visible(catalogue, bases, caller):
        parent = names[adapter.base_model.revision]
        details = listings.adapter_details(adapter, active=adapter.adapter_id in active)
        entries.append(listings.model_entry(adapter.adapter_id, parts.started, root=parent, parent=parent, **details))
        if adapter.adapter_id in active:
            entries.append(
                listings.model_entry(adapter.family, parts.started, root=adapter.adapter_id, parent=parent, **details)
            )
    entries.append(listings.model_entry("auto", parts.started, root="auto"))
    return entries
