"""The evaluator's side of the OpenAI-compatible protocol: answers, embeddings and likelihoods.

Any server that speaks it will do; `lorafleet` in an answer (who gave it) is what our inference adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from services.evaluator.domain import EvaluationFailure, Served
from services.evaluator.judging.signals import likelihood_text, mean_likelihood

MAX_INPUTS = 128  # texts of one embeddings request
M = TypeVar("M", bound=BaseModel)


class Unready(Exception):
    """The server does not know the model yet, is loading it, or is busy: ask again later."""


@dataclass(frozen=True)
class Answer:
    """One generated answer and who gave it. finish_reason `length` means that it was cut."""

    text: str
    generation_id: str
    finish_reason: str
    served: Served


class _Provenance(BaseModel):
    adapter_id: str | None = None
    artifact_sha256: str | None = None


class _Message(BaseModel):
    content: str | None = None


class _ChatChoice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class Chat(BaseModel):
    """The parts of a chat completion that are read here."""

    id: str
    choices: list[_ChatChoice] = Field(min_length=1)
    lorafleet: _Provenance = _Provenance()

    @property
    def answer(self) -> Answer:
        choice = self.choices[0]
        return Answer(
            text=choice.message.content or "",
            generation_id=self.id,
            finish_reason=choice.finish_reason or "",
            served=Served(self.lorafleet.adapter_id or "", self.lorafleet.artifact_sha256 or ""),
        )


def chat_body(
    model: str,
    messages: Sequence[Mapping[str, str]],
    max_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
) -> dict[str, object]:
    """A request for the answer to a conversation that ends with a user's turn; greedy without a temperature."""
    body = {"model": model, "messages": list(messages), "temperature": temperature, "max_tokens": max_tokens}
    return body if seed is None else body | {"seed": seed}


class _Likelihoods(BaseModel):
    token_logprobs: list[float | None]
    text_offset: list[int]


class _Scored(BaseModel):
    logprobs: _Likelihoods


class _Completion(BaseModel):
    choices: list[_Scored] = Field(min_length=1)
    lorafleet: _Provenance = _Provenance()


class _Vector(BaseModel):
    index: int
    embedding: list[float]


class _Embeddings(BaseModel):
    data: list[_Vector]


class OpenAIClient:
    """Calls one server. Transport faults pass through as httpx errors; Unready and EvaluationFailure as below.

    `headers`: with which credential and for which domain it calls (see `fleet_kit.acting_for`).
    """

    def __init__(self, http: httpx.AsyncClient, base_url: str, timeout: float, headers: Mapping[str, str]) -> None:
        self._http = http
        self._headers = dict(headers)
        self._url = base_url.rstrip("/")
        self._timeout = timeout

    async def answer(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Answer:
        """The model's answer, see `chat_body`."""
        body = chat_body(model, messages, max_tokens, temperature=temperature, seed=seed)
        return (await self._post("/v1/chat/completions", body, Chat)).answer

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in order."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), MAX_INPUTS):
            part = [text or " " for text in texts[start : start + MAX_INPUTS]]
            found = await self._post("/v1/embeddings", {"model": model, "input": part}, _Embeddings)
            ordered = sorted(found.data, key=lambda vector: vector.index)
            if [vector.index for vector in ordered] != list(range(len(part))):
                raise EvaluationFailure(f"/v1/embeddings gave {len(ordered)} vectors for {len(part)} texts")
            vectors += [vector.embedding for vector in ordered]
        return vectors

    async def likelihood(self, model: str, prompt: str, text: str, *, adapter_id: str = "") -> float | None:
        """Mean natural log-likelihood a token of `text` behind the prompt; None where no token is scored.

        adapter_id: who has to answer, none for a base model. Raises EvaluationFailure where another did.
        """
        whole, start = likelihood_text(prompt, text)
        scored = await self._post(
            "/v1/completions",
            {"model": model, "prompt": whole, "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0.0},
            _Completion,
        )
        answered = scored.lorafleet.adapter_id or ""
        if answered != adapter_id:
            raise EvaluationFailure(
                f"asked inference for likelihoods of {model}, but {answered or 'the base model'} answered"
            )
        tokens = scored.choices[0].logprobs
        if len(tokens.token_logprobs) != len(tokens.text_offset):
            raise EvaluationFailure("/v1/completions gave token_logprobs and text_offset of different lengths")
        return mean_likelihood(tokens.token_logprobs, tokens.text_offset, start)

    async def _post(self, path: str, body: dict[str, object], shape: type[M]) -> M:
        """Raises Unready (404, 429, 5xx), EvaluationFailure (any other refusal, or a body out of shape)."""
        response = await self._http.post(self._url + path, json=body, headers=self._headers, timeout=self._timeout)
        if response.status_code in {404, 429} or response.status_code >= 500:
            raise Unready(f"{path} of {body['model']}: {response.status_code} {refusal_of(response)[0]}")
        if response.is_error:
            raise EvaluationFailure(
                f"inference refused {path} of {body['model']}: {response.status_code} {refusal_of(response)[0]}"
            )
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            raise EvaluationFailure(
                f"{path} answered out of protocol: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from error


class _Error(BaseModel):
    message: str
    code: str | int | None = None


class _Refusal(BaseModel):
    error: _Error


def refusal_of(response: httpx.Response) -> tuple[str, str]:
    """Message and code of an error body of the protocol; of any other body its beginning and no code."""
    try:
        error = _Refusal.model_validate_json(response.content).error
    except ValidationError:
        return response.text[:500], ""
    return error.message[:500], str(error.code or "")
