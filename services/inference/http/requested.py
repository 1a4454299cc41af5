"""What a request wants of the engine: the tokens of each prompt, and how its answers are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lora_core.grammar import Grammar
from lora_core.sampling import SamplingParams
from services.inference.chosen import Chosen
from services.inference.errors import BadRequest
from services.inference.http.schemas import ChatRequest, CompletionRequest
from services.inference.tokenizer import Vocabulary


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """One prompt, and how its answers are drawn.

    offsets: the character at which each of its tokens begins, where it is no conversation. stop: texts before the
    first of which an answer ends. turns: the prompt as (role, text).
    """

    ids: list[int]
    sampling: SamplingParams
    stop: tuple[str, ...] = ()
    offsets: Sequence[int] = ()
    turns: Sequence[tuple[str, str]] = ()


def prompt_request(
    body: ChatRequest | CompletionRequest,
    max_tokens: int | None,
    ids: list[int],
    chosen: Chosen,
    offsets: Sequence[int] = (),
    *,
    grammar: Grammar | None,
    turns: Sequence[tuple[str, str]] = (),
) -> PromptRequest:
    """One of a request's prompts, with what the request gives for it. grammar: of `structured.grammar_of`.

    A field of the request that is named as one of `SamplingParams` is passed on as it is, so that a new one is a field
    of both (and of vLLM's body in `vllm.client`). What the request leaves open is the base model's own, else OpenAI's.

    Raises:
        BadRequest: the prompt, or the answer that is wanted behind it, is too long; an id is not of the vocabulary.
    """
    vocabulary = chosen.hosted.vocabulary
    vocabulary.check_ids(ids, _field(body))
    stop, stop_ids = vocabulary.split_stops(body.stops)
    named = _given(asdict(chosen.hosted.own)) | _given({name: getattr(body, name, None) for name in _NAMES})
    sampling = SamplingParams(
        **_OPENAI
        | named
        | {
            "max_tokens": _length(body, max_tokens, len(ids), chosen),
            "top_k": max(0, named.get("top_k", 0)),
            "logit_bias": _bias(body, vocabulary),
            "stop_ids": () if body.ignore_eos else None,
            "extra_stop_ids": stop_ids | frozenset(body.stop_token_ids or ()),
            "alternatives": body.top or 0,
            "grammar": grammar,
        }
    )
    return PromptRequest(ids, sampling, stop, offsets, turns)


_NAMES = [one.name for one in fields(SamplingParams)]
_OPENAI = {"temperature": 1.0}
"""Its defaults, where the engine has others."""


def of_choice(sampling: SamplingParams, number: int) -> SamplingParams:
    """For one of several answers to a prompt: a seed gives each of them its own."""
    if sampling.seed is None or not number:
        return sampling
    # Of 64 bits, whichever the sum has.
    return replace(sampling, seed=(sampling.seed + number + (1 << 63)) % (1 << 64) - (1 << 63))


def _field(body: ChatRequest | CompletionRequest) -> str:
    """The field of the prompt."""
    return "messages" if isinstance(body, ChatRequest) else "prompt"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


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
            param=_field(body),
        )
    allowed = min(limits.max_completion_tokens, limits.context - prompt_tokens)
    wanted = min(limits.default_completion_tokens, allowed) if max_tokens is None else max_tokens
    # A completion of no tokens gives the likelihood of its prompt.
    least = 0 if isinstance(body, CompletionRequest) and max_tokens == 0 else 1
    if not least <= wanted <= allowed:
        raise BadRequest(
            f"max_tokens is {wanted}, it must be from 1 to {allowed} for this prompt.",
            code="invalid_value",
            param="max_tokens",
        )
    return wanted
