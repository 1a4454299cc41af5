"""One vLLM server over HTTP: its adapters, and tokens for prompts that are token ids already.

Written against vLLM 0.32 (`vllm/entrypoints/openai` and `vllm/entrypoints/serve/lora` of its source).
"""

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from fleet_kit.text_lines import async_lines_of
from services.inference.engine_thread import Finished, Token
from services.inference.vllm.errors import Misconfigured, NotServed, Refused, ServerAway, ServerFault, VllmError

if TYPE_CHECKING:
    from lora_core.engine import Request
    from lora_core.grammar import Form

M = TypeVar("M", bound=BaseModel)
CONNECT, ANSWER, LOAD, NEXT_TOKEN = 2.0, 10.0, 120.0, 120.0
"""Seconds until a server counts as unavailable: to connect, to answer, to load an adapter, to give the next token."""

NO_LORA_API = "start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"


class Served(BaseModel):
    """A model that a server reports: its base model, or an adapter with the folder (`root`) that it came from."""

    id: str
    root: str | None = None
    parent: str | None = None


class _Models(BaseModel):
    data: list[Served]


class _Error(BaseModel):
    message: str


class _Fault(BaseModel):
    error: _Error | str


class _Logprobs(BaseModel):
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]


class _Logprob(BaseModel):
    logprob: float


class _Choice(BaseModel):
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    prompt_logprobs: list[dict[int, _Logprob] | None] | None = None


class _Completion(BaseModel):
    """A whole answer, or one chunk of a stream."""

    model: str
    choices: list[_Choice]


class VllmClient:
    """Speaks to the server at `url`. Every method raises `VllmError`."""

    def __init__(self, url: str, api_key: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(ANSWER, connect=CONNECT),
            verify=tls or True,
            # The server queues requests; the fleet decides how many it gets.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    async def close(self) -> None:
        """Ends its connections."""
        await self._http.aclose()

    async def models(self) -> list[Served]:
        """What it serves now; also proves that its engine lives."""
        await self._send("GET", "/health")
        return _parsed(_Models, await self._send("GET", "/v1/models")).data

    async def load(self, name: str, folder: Path) -> None:
        """Loads the PEFT checkpoint in `folder`, a path that the server reads, under a name that is not in use.

        Raises:
            Refused: it cannot serve this adapter.
            Misconfigured: it has no such endpoint, or no such folder.
        """
        body = {"lora_name": name, "lora_path": str(folder)}
        try:
            await self._send("POST", "/v1/load_lora_adapter", body, timeout=LOAD)
        except NotServed as error:
            raise Misconfigured(f"{error}; {NO_LORA_API}, and let it read the adapter folder") from error
        except ServerFault as error:
            # An adapter that it cannot take is answered with status 500, and so is one that its engine died of.
            await self._send("GET", "/health")
            raise Refused(str(error)) from error

    async def unload(self, name: str) -> None:
        """Takes an adapter from its list; what it does not have is no error."""
        try:
            await self._send("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        except NotServed:
            return

    async def top_logprobs(self, model: str, prompt_ids: list[int], top: int) -> dict[int, float]:
        """Token id → log-probability of the `top` likeliest first tokens of an answer."""
        body = {"logprobs": top, "return_tokens_as_token_ids": True, "max_tokens": 1, "temperature": 0}
        choice = await self._complete(model, prompt_ids, body)
        if choice.logprobs is None or not choice.logprobs.top_logprobs:
            raise Refused("it gave no log-probabilities")
        return _by_id(choice.logprobs.top_logprobs[0])

    async def scores(self, model: str, prompt_ids: list[int], alternatives: int) -> list[Token]:
        """Each token of the prompt after the first, with so many of the likeliest at its place."""
        parameters = {"prompt_logprobs": alternatives, "max_tokens": 1, "temperature": 0}
        choice = await self._complete(model, prompt_ids, parameters)
        given = choice.prompt_logprobs or []
        if len(given) != len(prompt_ids):
            raise Refused(f"it gave {len(given)} log-probabilities for a prompt of {len(prompt_ids)} tokens")
        steps = zip(given[1:], prompt_ids[1:], strict=True)
        return [
            Token(token, step[token].logprob, _likeliest({one: of.logprob for one, of in step.items()}, alternatives))
            for step, token in steps
            if step
        ]

    @asynccontextmanager
    async def stream(
        self, model: str, request: "Request", stops: Collection[int]
    ) -> AsyncIterator[AsyncIterator[Token | Finished]]:
        """Tokens as they come, ended by `Finished`; leaving the context closes the connection, which cancels the rest.

        stops: the model's own end tokens, where the request does not set others.
        """
        body = _body(model, list(request.prompt_ids)) | {
            "stream": True,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "min_p": request.min_p,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "logit_bias": {str(token): bias for token, bias in request.logit_bias.items()} or None,
            "seed": request.seed,
            "logprobs": request.alternatives,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
            # Ours alone end an answer, so that the same model ends where it does in the engine of this process.
            "ignore_eos": True,
            "stop_token_ids": sorted(ending := request.stops(stops)),
        }
        if request.repetition_penalty is not None:
            body["repetition_penalty"] = request.repetition_penalty
        if request.grammar is not None:
            body["structured_outputs"] = _structured(request.grammar.form)
        timeout = httpx.Timeout(ANSWER, connect=CONNECT, read=NEXT_TOKEN)
        try:
            async with self._http.stream("POST", "/v1/completions", json=body, timeout=timeout) as response:
                if response.is_error:
                    await response.aread()
                    raise _error(response)
                async with aclosing(self._tokens(response, model, ending, request.alternatives)) as tokens:
                    yield tokens
        except httpx.RequestError as error:
            raise ServerAway(f"{type(error).__name__} {error}".rstrip()) from error

    async def _tokens(
        self, response: httpx.Response, model: str, stops: Collection[int], alternatives: int
    ) -> AsyncGenerator[Token | Finished, None]:
        try:
            async for line in async_lines_of(response.aiter_bytes()):
                data = line.removeprefix("data:").strip()
                if not data or data == "[DONE]":
                    continue
                if data.startswith('{"error"'):
                    # The stream's status is behind it already.
                    raise ServerFault(_message(data))
                for choice in _of_model(model, data).choices:
                    for token in _drawn(choice, stops, alternatives):
                        yield token
                    match choice.finish_reason:
                        case None:
                            continue
                        case "stop" | "length" as reason:
                            yield Finished(reason)
                            return
                        case other:
                            raise ServerFault(f"it ended a stream with {other!r}")
        except httpx.RequestError as error:
            raise ServerAway(f"{type(error).__name__} {error}".rstrip()) from error
        raise ServerAway("it ended a stream before the answer's end")

    async def _complete(self, model: str, prompt_ids: list[int], fields: Mapping[str, object]) -> _Choice:
        body = {**_body(model, prompt_ids), **fields}
        raw = await self._send("POST", "/v1/completions", body, timeout=NEXT_TOKEN)
        return _of_model(model, raw).choices[0]

    async def _send(
        self, method: str, path: str, body: Mapping[str, object] | None = None, timeout: float = ANSWER
    ) -> bytes:
        try:
            response = await self._http.request(
                method, path, json=body, timeout=httpx.Timeout(timeout, connect=CONNECT)
            )
        except httpx.RequestError as error:
            raise ServerAway(f"{type(error).__name__} {error}".rstrip()) from error
        if response.is_error:
            raise _error(response)
        return response.content


def _body(model: str, prompt_ids: list[int]) -> dict[str, object]:
    # What is left out is taken from the model's generation_config.json, which other tools wrote for other uses.
    neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    return {"model": model, "prompt": prompt_ids, "add_special_tokens": False, **neutral}


def _structured(form: "Form") -> dict[str, object]:
    """Its names of what an answer must be."""
    match form.kind:
        case "json_schema":
            return {"json": form.source}
        case "regex":
            return {"regex": form.source}
        case "choice":
            return {"choice": json.loads(form.source)}
        case "lark":
            raise Refused("its grammars are not ours: answers of vLLM servers call no tools here")


def _error(response: httpx.Response) -> VllmError:
    message = f"{_message(response.content)} (HTTP {response.status_code})"
    match response.status_code:
        case 404:
            return NotServed(message)
        case 401 | 403:
            return Misconfigured(f"{message}; its API key is another")
        case status if status >= 500:
            return ServerFault(message)
        case _:
            return Refused(message)


def _message(raw: bytes | str) -> str:
    """The server's own words, where they have vLLM's form `{"error": {"message": ...}}`."""
    try:
        error = _Fault.model_validate_json(raw).error
    except ValidationError:
        return str(raw[:200])
    return error if isinstance(error, str) else error.message


def _parsed(form: type[M], raw: bytes | str) -> M:
    try:
        return form.model_validate_json(raw)
    except ValidationError as error:
        raise Misconfigured(f"it answers in another form than vLLM: {raw[:200]!r}") from error


def _of_model(model: str, raw: bytes | str) -> _Completion:
    completion = _parsed(_Completion, raw)
    if completion.model != model:
        raise Misconfigured(f"it was called for {model!r} and answers as {completion.model!r}")
    return completion


def _drawn(choice: _Choice, stops: Collection[int], alternatives: int) -> list[Token]:
    ids = choice.token_ids
    logprobs = choice.logprobs.token_logprobs if choice.logprobs else []
    if ids is None or len(ids) != len(logprobs):
        raise Misconfigured("it returns no token ids: a newer vLLM is needed")
    listed = choice.logprobs.top_logprobs if choice.logprobs and alternatives else []
    likeliest = [_likeliest(_by_id(one), alternatives) for one in listed] or [()] * len(ids)
    drawn = [Token(*one) for one in zip(ids, logprobs, likeliest, strict=True)]
    if choice.finish_reason == "stop" and drawn and drawn[-1].id in stops:
        drawn.pop()
    return drawn


def _by_id(listed: Mapping[str, float]) -> dict[int, float]:
    return {int(token.removeprefix("token_id:")): logprob for token, logprob in listed.items()}


def _likeliest(logprobs: Mapping[int, float], most: int) -> tuple[tuple[int, float], ...]:
    """vLLM adds the token that is there to the likeliest, which it need not be one of."""
    ordered = sorted(logprobs.items(), key=lambda one: -one[1])
    return tuple(ordered[:most])
