"""HTTP of inference: the OpenAI API, and feedback on its answers."""

from contextlib import AsyncExitStack
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from fleet_kit.auth import Caller
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with
from services.inference.errors import BadRequest, NotFound
from services.inference.http import embeddings, erasure, feedback, listings, openai_format
from services.inference.http.access import Generates, LimitedCaller, Parts, counted_caller, started_parts
from services.inference.http.answering import answer
from services.inference.http.batches import files as batch_files
from services.inference.http.batches import routes as batches
from services.inference.http.chat_prompt import chat_prompt
from services.inference.http.choosing import choose
from services.inference.http.comparing import compared
from services.inference.http.requested import prompt_request
from services.inference.http.responses import routes as responses
from services.inference.http.schemas import ChatRequest, CompletionRequest
from services.inference.http.structured import grammar_of
from services.inference.http.tasks import answer_tasks, form_of
from services.inference.parts import InferenceParts
from services.inference.resolution import AUTO, visible
from services.inference.router_client import NO_QUERY, Query

router = APIRouter()
router.include_router(embeddings.router)
router.include_router(feedback.router)
router.include_router(responses.router)
router.include_router(batch_files.router)
router.include_router(batches.router)
router.include_router(erasure.router)
_ANSWERS = answers_with("application/json", "text/event-stream")
_PROMPTS = body_rule(4 << 20)
"""Conversations and batches of texts of the longest contexts."""


_parts, _asks = started_parts, counted_caller
"""As which an app's dependencies are replaced."""


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
async def chat(body: ChatRequest, request: Request, caller: LimitedCaller, parts: Parts) -> Response:
    """Answer a conversation, whole or as server-sent events; with `compare` by several models side by side."""
    if body.compare:
        return await compared(body, request, caller, parts)
    async with AsyncExitStack() as held:
        query = Query(body.user_turns[-1], body.user_turns[:-1])
        chosen = await choose(body, query, request, caller, parts=parts, held=held)
        if isinstance(chosen, Response):
            return chosen
        prompt, written = await chat_prompt(body, chosen)
        tasks = answer_tasks(body, [prompt], chosen, caller, parts=parts, held=held)
        form = replace(form_of(openai_format.Chat, body, tasks), formats=[written] * len(tasks))
        return await answer(body, form, tasks, [prompt], request=request, generator=parts.generator)


@router.post("/v1/completions", openapi_extra=_PROMPTS, responses=_ANSWERS)
async def completions(body: CompletionRequest, request: Request, caller: LimitedCaller, parts: Parts) -> Response:
    """Continue texts. `echo` with `logprobs` and `max_tokens` 0 gives the likelihood of the text itself."""
    async with AsyncExitStack() as held:
        chosen = await choose(body, _query(body), request, caller, parts=parts, held=held)
        if isinstance(chosen, Response):
            return chosen
        vocabulary, prompts = chosen.hosted.vocabulary, []
        grammar = await grammar_of(body, vocabulary)
        for prompt in body.prompts:
            ids, offsets = vocabulary.of_text(prompt) if isinstance(prompt, str) else vocabulary.of_ids(prompt)
            one = prompt_request(body, body.max_tokens, ids, chosen, offsets, grammar=grammar)
            text = prompt if isinstance(prompt, str) else vocabulary.decode(ids, skip_special_tokens=False)
            prompts.append(replace(one, turns=[("user", text)]))
        tasks = answer_tasks(body, prompts, chosen, caller, parts=parts, held=held)
        form = form_of(openai_format.Completion, body, tasks)
        return await answer(body, form, tasks, prompts, request=request, generator=parts.generator)


def _query(body: CompletionRequest) -> Query:
    """The query for the router."""
    match body.prompts:
        case [str() as text]:
            return Query(text)
    if body.model == AUTO:
        raise BadRequest("the router reads one text: give the prompt as it.", code="invalid_value", param="prompt")
    return NO_QUERY


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
