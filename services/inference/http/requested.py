"""What a request asks of the engine: the tokens of each prompt, and how its answers are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.inference.chosen import Chosen
from services.inference.errors import BadRequest
from services.inference.generation import Sampling
from services.inference.http.schemas import ChatRequest, CompletionRequest
from services.inference.tokenizer import Vocabulary

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt. offsets: the character at which each of its tokens begins, where it is no conversation."""

    ids: list[int]
    sampling: Sampling
    offsets: Sequence[int] = ()


def sampling(
    body: ChatRequest | CompletionRequest, max_tokens: int | None, prompt_tokens: int, chosen: Chosen
) -> Sampling:
    """How the answers to one prompt are drawn.

    What the request leaves open is the base model's own, else OpenAI's.

    Raises:
        BadRequest: the prompt, or the answer that is wanted behind it, is too long; an id is not of the vocabulary.
    """
    own, vocabulary = chosen.hosted.own, chosen.hosted.vocabulary
    stop, stop_ids = vocabulary.split_stops(body.stops)
    return Sampling(
        max_tokens=_length(body, max_tokens, prompt_tokens, chosen),
        temperature=_first(body.temperature, own.temperature, 1.0),
        top_p=_first(body.top_p, own.top_p, 1.0),
        top_k=max(0, _first(body.top_k, own.top_k, 0)),
        min_p=_first(body.min_p, own.min_p, 0.0),
        repetition_penalty=_first(body.repetition_penalty, own.repetition_penalty, 1.0),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=_bias(body, vocabulary),
        seed=body.seed,
        stop=stop,
        stop_ids=stop_ids | frozenset(body.stop_token_ids or ()),
        ignore_eos=body.ignore_eos,
        alternatives=body.top or 0,
    )


def _first(asked: T | None, own: T | None, otherwise: T) -> T:
    return asked if asked is not None else own if own is not None else otherwise


def _bias(body: ChatRequest | CompletionRequest, vocabulary: Vocabulary) -> dict[int, float]:
    bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
    vocabulary.check_ids(bias, "logit_bias")
    return bias


def _length(body: ChatRequest | CompletionRequest, max_tokens: int | None, prompt_tokens: int, chosen: Chosen) -> int:
    limits = chosen.hosted.limits
    if prompt_tokens > limits.max_prompt_tokens:
        raise BadRequest(
            f"the prompt has {prompt_tokens} tokens, at most {limits.max_prompt_tokens} are taken.",
            code="context_length_exceeded",
            param="messages" if isinstance(body, ChatRequest) else "prompt",
        )
    allowed = min(limits.max_completion_tokens, limits.context - prompt_tokens)
    wanted = min(limits.default_completion_tokens, allowed) if max_tokens is None else max_tokens
    # A completion of no tokens gives the likelihood of its prompt.
    least = 0 if isinstance(body, CompletionRequest) and max_tokens == 0 and not body.stream else 1
    if not least <= wanted <= allowed:
        raise BadRequest(
            f"max_tokens is {wanted}, it must be from 1 to {allowed} for this prompt.",
            code="invalid_value",
            param="max_tokens",
        )
    return wanted
