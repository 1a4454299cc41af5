"""One conversation, answered by several models side by side, so that a person can tell which answer is better."""

from fastapi import Request, Response

from fleet_kit.auth import Caller
from services.inference.answer_task import AnswerTask
from services.inference.http import openai_format
from services.inference.http.answering import answer
from services.inference.http.chat_prompt import chat_prompt
from services.inference.http.schemas import ChatRequest
from services.inference.http.tasks import exchange_of, form_of, name_in_ids
from services.inference.parts import InferenceParts
from services.inference.router_client import Query


async def compared(body: ChatRequest, request: Request, caller: Caller, parts: InferenceParts) -> Response:
    """An answer of each model, one choice a model, in their order; streamed, each chunk is of one of them.

    Each is chosen, and permitted to the caller, as `model` alone would be; beyond that, a version that is approved and
    was never active is compared by its name. The replica where the request arrives gives all answers.

    Raises what `Generator.choose` and `Generator.answer` raise, for any of them: a stream begins once all have begun.
    """
    parts.gate.require_open()
    query = Query(body.user_turns[-1], body.user_turns[:-1])
    chosen = [await parts.generator.choose(model, query, caller, approved=True) for model in body.compare]
    read = [await chat_prompt(body, one) for one in chosen]
    prompts = [prompt for prompt, _ in read]
    domains = {one.adapter.domain for one in chosen if one.adapter}
    beside = domains.pop() if len(domains) == 1 else ""
    catalogue = parts.projection.catalogue
    named = parts.generator.ids.side_by_side([name_in_ids(one, catalogue, beside) for one in chosen])
    tasks = [
        AnswerTask(
            generation_id,
            one,
            prompt.ids,
            prompt.sampling,
            caller,
            prompt.stop,
            body.workflow,
            wait_credit=-body.priority,
            first=not at,
            comparison_id=named.comparison_id,
            exchange=exchange_of(
                body,
                prompt,
                caller,
                request_id=named.comparison_id,
                comparison_id=named.comparison_id,
                beside=beside,
            ),
        )
        for at, (generation_id, one, prompt) in enumerate(zip(named.generation_ids, chosen, prompts, strict=True))
    ]
    form = form_of(openai_format.Chat, body, tasks)
    form.compared = [one.provenance for one in chosen]
    form.models = body.compare
    # Models of different templates may think and call in different forms; each answer is read in its own.
    form.formats = [written for _, written in read]
    return await answer(body, form, tasks, prompts, request=request, generator=parts.generator, begun=len(tasks))
