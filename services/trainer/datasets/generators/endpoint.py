"""A server of the OpenAI chat protocol: many answers at once, returned in order."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_kit.acting_for import acting_for
from fleet_kit.tls import client_context

TRIES = 5
_PAUSE = 0.5
_LONGEST_PAUSE = 20.0


class EndpointFailed(Exception):
    """The endpoint gave no answer. What it made so far is no data set: nothing comes of this build."""


class Endpoint(BaseModel):
    """Where answers come from. `url` is an OpenAI base URL, for example http://inference:8105/v1.

    `act_for` are the domains of the caller who requested the records: the token is narrowed to them, so that no model
    answers that they may not use. None: a foreign server, which knows no domains of ours and is not shown any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(pattern=r"^https?://.+")]
    model: Annotated[str, Field(min_length=1)]
    token: str = Field(default="", repr=False)
    act_for: tuple[str, ...] | None
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    ca_file: Path | None = None
    """Authorities that sign its certificate, beside the public ones."""


@dataclass(frozen=True)
class Question:
    """One request: a single user message, or the whole talk up to it as (role, text)."""

    text: str
    temperature: float
    max_tokens: int
    seed: int
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Answer:
    """The model's answer; `cut` when it reached its limit."""

    text: str
    cut: bool


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Chat(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


class ChatClient:
    """Calls one model of one endpoint. Use as a context manager."""

    def __init__(self, endpoint: Endpoint, model: str, *, pause: float = _PAUSE) -> None:
        self.model = model or endpoint.model
        self._endpoint = endpoint
        self._pause = pause
        headers = {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
        if endpoint.act_for is not None:
            headers |= acting_for(endpoint.act_for)
        limits = httpx.Limits(max_connections=endpoint.concurrency)
        timeout = httpx.Timeout(endpoint.timeout_seconds, connect=10)
        self._http = httpx.Client(
            headers=headers, limits=limits, timeout=timeout, verify=client_context(endpoint.ca_file)
        )
        self._threads = ThreadPoolExecutor(endpoint.concurrency, thread_name_prefix="generation")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._http.close()

    def answers(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """The answers in the questions' order, at most `concurrency` requests under way.

        Raises:
            EndpointFailed: a question has no answer after `TRIES` tries, or the endpoint refuses it.
        """
        waiting: deque[Future[Answer]] = deque()
        for question in questions:
            waiting.append(self._threads.submit(self._ask, question))
            if len(waiting) >= 2 * self._endpoint.concurrency:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _ask(self, question: Question) -> Answer:
        answer = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(self._pause * 2**attempt, _LONGEST_PAUSE))
            try:
                response = self._post(question)
            except httpx.TransportError as error:
                answer = repr(error)
                continue
            if response.is_success:
                return self._read(response)
            answer = f"{response.status_code} {response.text[:300]}"
            if response.status_code not in (408, 409, 425, 429) and response.status_code < 500:
                break
        raise EndpointFailed(f"{self._endpoint.url} with model {self.model!r} gave no answer: {answer}")

    def _post(self, question: Question) -> httpx.Response:
        turns = question.turns or (("user", question.text),)
        # What the fleet's own models answer to a build is nothing that users asked.
        own = {"store": False} if self._endpoint.act_for is not None else {}
        return self._http.post(
            f"{self._endpoint.url.rstrip('/')}/chat/completions",
            json={
                "model": self.model,
                "messages": [{"role": role, "content": text} for role, text in turns],
                "temperature": question.temperature,
                "max_tokens": question.max_tokens,
                "seed": question.seed,
                **own,
            },
        )

    def _read(self, response: httpx.Response) -> Answer:
        try:
            choice = _Chat.model_validate_json(response.content).choices[0]
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise EndpointFailed(f"{self._endpoint.url} answered out of protocol: {where}: {first['msg']}") from error
        return Answer((choice.message.content or "").strip(), choice.finish_reason == "length")
