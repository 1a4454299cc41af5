"""HTTP of `/v1/responses`."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from fleet_kit.auth import Caller
from fleet_kit.http_limits import body_rule
from fleet_kit.http_openapi import answers_with
from services.inference.answer_reader import AnswerReader
from services.inference.answer_task import AnswerTask
from services.inference.errors import ApiError, BadRequest, NotFound
from services.inference.http.access import Generates, LimitedCaller, Parts
from services.inference.http.answering import answer
from services.inference.http.chat_prompt import chat_prompt
from services.inference.http.choosing import choose
from services.inference.http.messages import ChatMessage
from services.inference.http.responses.conversation import as_here, chat_of, turns_of
from services.inference.http.responses.form import ResponseForm
from services.inference.http.responses.input_items import input_items, item_page
from services.inference.http.responses.output import Delta, Object
from services.inference.http.responses.references import outputs_of, resolved
from services.inference.http.responses.replay import replayed
from services.inference.http.responses.request import ResponseRequest
from services.inference.http.responses.store import KeptResponse, ResponseStore
from services.inference.http.tasks import answer_tasks
from services.inference.parts import InferenceParts
from services.inference.router_client import Query as RouterQuery

router = APIRouter()


@router.post(
    "/v1/responses",
    openapi_extra=body_rule(4 << 20),
    responses=answers_with("application/json", "text/event-stream"),
)
async def respond(body: ResponseRequest, request: Request, caller: LimitedCaller, parts: Parts) -> Response:
    """Answer a conversation, whole or as server-sent events; `previous_response_id` continues an earlier one."""
    earlier = await _earlier(body, caller, parts)
    with _errors_as_here():
        given = body.input if isinstance(body.input, str) else await resolved(body.input, caller, parts.responses)
        turns = [*earlier.turns, *turns_of(given)]
        chat = chat_of(body, turns)
        async with AsyncExitStack() as held:
            query = RouterQuery(chat.user_turns[-1], chat.user_turns[:-1])
            chosen = await choose(chat, query, request, caller, parts=parts, held=held)
            if isinstance(chosen, Response):
                return chosen
            prompt, written = await chat_prompt(chat, chosen)
            [task] = answer_tasks(chat, [prompt], chosen, caller, parts=parts, held=held, earlier=earlier.domains)
            keep = partial(_keep, store=parts.responses, task=task, turns=turns, earlier=earlier, person=chat.end_user)
            form = ResponseForm(body=body, task=task, reader=AnswerReader(written), keep=keep if body.store else None)
            return await answer(chat, form, [task], [prompt], request=request, generator=parts.generator)


@router.get("/v1/responses/{response_id}", responses=answers_with("application/json", "text/event-stream"))
async def response(
    response_id: str,
    caller: Generates,
    parts: Parts,
    *,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> Response:
    """A stored response of the caller's own, whole or as the events in which it came, from a number on."""
    if starting_after is not None and not stream:
        raise BadRequest(
            "starting_after counts events: send stream=true.", code="invalid_value", param="starting_after"
        )
    kept = await parts.responses.find(response_id, caller)
    if stream:
        return StreamingResponse(replayed(kept, starting_after), media_type="text/event-stream")
    return JSONResponse(kept.response)


@router.get("/v1/responses/{response_id}/input_items")
async def response_inputs(
    response_id: str,
    caller: Generates,
    parts: Parts,
    *,
    after: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> JSONResponse:
    """What a stored response of the caller's own answered, with the turns that it continued."""
    kept = await parts.responses.find(response_id, caller)
    if kept.inputs is None:
        message = f"response {response_id!r} was stored by an earlier release, without its input."
        raise NotFound(message, code="input_not_kept", param="response_id")
    items = input_items(kept.turns[: kept.inputs], response_id)
    return JSONResponse(item_page(items if order == "asc" else items[::-1], after, limit))


@router.delete("/v1/responses/{response_id}")
async def delete_response(response_id: str, caller: Generates, parts: Parts) -> JSONResponse:
    """Delete a stored response of the caller's own. Those that continued it have the conversation too, and stay."""
    await parts.responses.forget(response_id, caller)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


async def _earlier(body: ResponseRequest, caller: Caller, parts: InferenceParts) -> KeptResponse:
    """What is continued, or a conversation of nothing."""
    if body.previous_response_id is None:
        return KeptResponse(response={}, turns=[])
    try:
        return await parts.responses.find(body.previous_response_id, caller)
    except NotFound as error:
        raise BadRequest(error.message, code="previous_response_not_found", param="previous_response_id") from error


async def _keep(
    response: Object,
    deltas: Sequence[Delta],
    *,
    store: ResponseStore,
    task: AnswerTask,
    turns: Sequence[ChatMessage],
    earlier: KeptResponse,
    person: str,
) -> bool:
    kept = KeptResponse(
        response=response,
        turns=[*turns, *turns_of(outputs_of(response))],
        domains=sorted({*earlier.domains, *(one.domain for one in task.chosen.adapters)}),
        inputs=len(turns),
        deltas=list(deltas),
        people=earlier.people,
    )
    return await store.keep(task.generation_id, task.caller, kept, person=person)


@contextmanager
def _errors_as_here() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise as_here(error) from None
