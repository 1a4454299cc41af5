"""The inference service's endpoints, and the health of any service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter

from lorafleet.clients import Call
from lorafleet.responses import Anything, ChatCompletion, ForgottenStored, Reply

_ANYTHING = TypeAdapter(Anything)
_CHAT = TypeAdapter(ChatCompletion)


def models() -> Call[list[Reply]]:
    """What `model` may name."""
    return Call("inference", "GET", "/v1/models", TypeAdapter(list[Reply]), inside="data")


def chat(
    model: str,
    prompt: str,
    *,
    system: str = "",
    history: Sequence[Mapping[str, str]] = (),
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int | None = None,
    stream: bool = False,
    user: str = "",
    compare: Sequence[str] = (),
    logprobs: bool = False,
) -> Call[ChatCompletion]:
    """A chat completion. `history`: turns before the prompt, each with `role` and `content`.

    `user` is whom the caller asks for: it decides which version answers during a rollout. `compare` names two or more
    models, which answer side by side in place of `model`.
    """
    messages = [*([{"role": "system", "content": system}] if system else []), *map(dict, history)]
    body: dict[str, object] = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": stream,
    }
    if seed is not None:
        body["seed"] = seed
    if user:
        body["user"] = user
    if logprobs:
        body["logprobs"] = True
    if compare:
        del body["model"]
        body["compare"] = list(compare)
    return Call("inference", "POST", "/v1/chat/completions", _CHAT, body=body)


def feedback(
    generation_id: str,
    rating: int | None = None,
    comment: str = "",
    *,
    correction: str | None = None,
    preferred_over: str | None = None,
    subject: str | None = None,
    routed_wrongly: bool = False,
    right_family: str | None = None,
) -> Call[Anything]:
    """Rate or correct an answer, prefer it over another, or tell that it was routed wrongly."""
    routed: dict[str, object] = {"routed_wrongly": True, "right_family": right_family} if routed_wrongly else {}
    body = {
        "generation_id": generation_id,
        "rating": rating,
        "comment": comment,
        "correction": correction,
        "preferred_over": preferred_over,
        "subject": subject,
        **routed,
    }
    return Call("inference", "POST", "/v1/feedback", _ANYTHING, body=body)


def prefer(comparison_id: str, preferred: int, comment: str = "", *, subject: str | None = None) -> Call[Anything]:
    """Prefer one choice of a comparison, by its index, over all its others."""
    body = {"comparison_id": comparison_id, "preferred": preferred, "comment": comment, "subject": subject}
    return Call("inference", "POST", "/v1/feedback", _ANYTHING, body=body)


def forget_stored(erasure_id: str, subject: str, domain: str) -> Call[ForgottenStored]:
    """Have a person's stored responses, files and batches deleted."""
    body = {"erasure_id": erasure_id, "subject": subject, "domain": domain}
    return Call("inference", "POST", "/v1/stored-erasures", TypeAdapter(ForgottenStored), body=body)


def health(service: str, what: str = "readyz") -> Call[Anything]:
    """/healthz or /readyz of a service."""
    return Call(service, "GET", f"/{what}", _ANYTHING)
