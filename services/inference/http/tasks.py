"""The answers that a request asks for, and the form in which they are written."""

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from fleet_kit.auth import Caller
from services.inference.answer_task import AnswerTask
from services.inference.catalogue import Catalogue
from services.inference.chosen import Chosen
from services.inference.generation_ids import ComparisonIds, GenerationIds
from services.inference.http import openai_format
from services.inference.http.answering import wants_usage
from services.inference.http.requested import PromptRequest, of_choice
from services.inference.http.schemas import ChatRequest, CompletionRequest, GenerationRequest
from services.inference.parts import InferenceParts
from services.inference.recording.exchange import Exchange
from services.inference.recording.pending import owner_and_parties
from services.inference.resolution import CANDIDATES_SCOPE

F = TypeVar("F", openai_format.Chat, openai_format.Completion)


def answer_tasks(
    body: GenerationRequest,
    prompts: Sequence[PromptRequest],
    chosen: Chosen,
    caller: Caller,
    *,
    parts: InferenceParts,
    held: AsyncExitStack,
    earlier: Collection[str] = (),
) -> list[AnswerTask]:
    """All answers to give: n for each prompt, those of one prompt together. The first takes over what is held.

    earlier: see `Exchange`.
    """
    answered_by = name_in_ids(chosen, parts.projection.catalogue)
    named = [_ids(parts.generator.ids, answered_by, body.n) for _ in prompts]
    request_id = named[0].generation_ids[0]
    return [
        AnswerTask(
            generation_id,
            chosen,
            one.ids,
            of_choice(one.sampling, choice),
            caller,
            one.stop,
            body.workflow,
            wait_credit=-body.priority,
            held=held if chosen.fallback_model is not None and not (at or choice) else None,
            first=not (at or choice),
            comparison_id=ids.comparison_id,
            exchange=exchange_of(
                body, one, caller, request_id=request_id, comparison_id=ids.comparison_id, earlier=earlier
            ),
        )
        for at, (one, ids) in enumerate(zip(prompts, named, strict=True))
        for choice, generation_id in enumerate(ids.generation_ids)
    ]


def exchange_of(
    body: GenerationRequest,
    prompt: PromptRequest,
    caller: Caller,
    *,
    request_id: str,
    comparison_id: str,
    beside: str = "",
    earlier: Collection[str] = (),
) -> Exchange | None:
    """What would be recorded beside an answer.

    None where the request forbids that (OpenAI's `store: false`), of conversations with calls, and of the evaluator's:
    answers to golden questions must not become training data.
    """
    if body.store is False or not prompt.turns or CANDIDATES_SCOPE in caller.scopes:
        return None
    return Exchange(tuple(prompt.turns), request_id, body.end_user, comparison_id, beside, frozenset(earlier))


def name_in_ids(chosen: Chosen, catalogue: Catalogue, beside: str = "") -> str:
    """Who answers, as `GenerationIds` names it."""
    if chosen.adapter_id:
        return chosen.adapter_id
    owner, _ = owner_and_parties(chosen, catalogue, beside)
    return f"@{owner}" if owner else ""


def form_of(kind: type[F], body: ChatRequest | CompletionRequest, tasks: Sequence[AnswerTask]) -> F:
    """The form in which the answers are written."""
    first = tasks[0]
    comparisons = {one.comparison_id for one in tasks}
    return kind(
        id=first.generation_id,
        model=body.model,
        provenance=first.chosen.provenance,
        tokens=first.chosen.hosted.vocabulary.bytes,
        top=body.top,
        usage=wants_usage(body),
        generation_ids=[one.generation_id for one in tasks],
        comparison_id=first.comparison_id if len(comparisons) == 1 else "",
    )


def _ids(ids: GenerationIds, answered_by: str, choices: int) -> ComparisonIds:
    if choices == 1:
        return ComparisonIds("", (ids.new(answered_by),))
    return ids.side_by_side([answered_by] * choices)
