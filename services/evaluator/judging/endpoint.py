"""Sends requests to a judge's OpenAI-compatible endpoint, with its faults: busy, slow, unavailable, refusing.

Source: the API reference of OpenAI's chat completions, its error codes, and RFC 9110 (Retry-After).
"""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from pydantic import BaseModel, Field, ValidationError

from services.evaluator.domain import EvaluationFailure
from services.evaluator.judging.settings import JudgeSettings
from services.evaluator.metrics import JUDGE_REQUESTS, JUDGE_SECONDS
from services.evaluator.openai_client import Unready, refusal_of

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of one answer."""
NEVER = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of a 429 that no waiting mends."""


class NoAnswer(Exception):
    """This one request gets no answer in time; others may."""


@dataclass(frozen=True)
class Raw:
    """The body of an answer as it came, and the seconds that its last try took."""

    body: bytes
    seconds: float


class _Choice(BaseModel):
    class _Message(BaseModel):
        content: str | None = None
        refusal: str | None = None

    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class ChatReply(BaseModel):
    """The parts of a chat completion that judging reads."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    model: str = ""
    system_fingerprint: str | None = None


class JudgeEndpoint:
    """One judge's endpoint, shared by all evaluations of this process: its concurrency holds for them together."""

    def __init__(self, name: str, settings: JudgeSettings, http: httpx.AsyncClient) -> None:
        self._name = name
        self._settings = settings
        self._http = http
        self.places = asyncio.Semaphore(settings.concurrency)
        """Held by a request, from looking at the budget to having written down what was spent."""

    async def send(self, body: bytes) -> Raw:
        """The answer to a JSON request; the caller holds one of the `places`.

        Raises:
            NoAnswer: no try was answered within its time.
            Unready: busy or unavailable for longer than its tries and waits last.
            EvaluationFailure: it refuses in a way that no repetition mends (key, quota, model, parameters).
        """
        slow, last = 0, ""
        for attempt in range(self._settings.tries):
            begun = time.monotonic()
            wait = random.uniform(0.5, 1) * min(2.0**attempt, self._settings.longest_wait)  # noqa: S311
            try:
                response = await self._post(body)
            except httpx.TimeoutException:
                self._count("timeout", begun)
                slow, last = slow + 1, f"no answer within {self._settings.timeout:g} s"
            except httpx.TransportError as error:
                self._count("unreachable", begun)
                last = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    self._count("answered", begun)
                    return Raw(response.content, time.monotonic() - begun)
                self._count("busy" if response.status_code == 429 else "refused", begun)
                last = f"{response.status_code} {self._check(response)}"
                wait = self._requested_wait(response, wait, last)
            if attempt + 1 < self._settings.tries:
                await asyncio.sleep(wait)
        if slow == self._settings.tries:
            raise NoAnswer(f"judge {self._name!r}: {last}, {slow} times")
        raise Unready(f"judge {self._name!r} at {self._settings.url}: {last}")

    async def _post(self, body: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        if self._settings.key_file:
            headers["Authorization"] = f"Bearer {self._key(self._settings.key_file.read_text)}"
        url = f"{self._settings.url}/chat/completions"
        # The timeout of a client counts between bytes; a slow judge must not drip for ever.
        try:
            async with (
                asyncio.timeout(self._settings.timeout),
                self._http.stream("POST", url, content=body, headers=headers, timeout=self._settings.timeout) as got,
            ):
                content = b""
                async for part in got.aiter_bytes():
                    content += part
                    if len(content) > MAX_ANSWER:
                        raise EvaluationFailure(f"judge {self._name!r} answers with more than {MAX_ANSWER} bytes")
                return httpx.Response(got.status_code, headers=_plain(got.headers), content=content)
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no whole answer within {self._settings.timeout:g} s") from error

    def _key(self, read: Callable[[], str]) -> str:
        try:
            return read().strip()
        except OSError as error:
            raise Unready(f"judges.{self._name}.key_file cannot be read: {error.strerror}") from error

    def _check(self, response: httpx.Response) -> str:
        """The text of a refusal; raises EvaluationFailure where no repetition mends it."""
        message, code = refusal_of(response)
        if code not in NEVER and (response.status_code in {408, 409, 425, 429} or response.status_code >= 500):
            return message
        hint = {401: "key_file", 403: "key_file", 404: "url and model", 400: "model, parameters and answers"}
        check = hint.get(response.status_code, "the account" if code in NEVER else "url")
        raise EvaluationFailure(
            f"judge {self._name!r} refused: {response.status_code} {message}; check its {check} (LORAFLEET_JUDGES)"
        )

    def _requested_wait(self, response: httpx.Response, own: float, reason: str) -> float:
        """Seconds until the next try: from Retry-After, else our own. Raises Unready for more than the longest."""
        requested = retry_after(response.headers.get("Retry-After", ""), datetime.now(UTC))
        if requested is None:
            return own
        if requested > self._settings.longest_wait:
            raise Unready(f"judge {self._name!r} wants {requested:g} s until the next request: {reason}")
        return requested

    def _count(self, outcome: str, begun: float) -> None:
        JUDGE_REQUESTS.labels(self._name, outcome).inc()
        JUDGE_SECONDS.labels(self._name).observe(time.monotonic() - begun)


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Without those of the transfer: the content is decoded by now."""
    return {name: value for name, value in headers.items() if name not in {"content-encoding", "content-length"}}


def retry_after(value: str, now: datetime) -> float | None:
    """Seconds of a Retry-After header: a number or a date (RFC 9110, 10.2.3); None where it is neither."""
    try:
        return max(0.0, float(int(value)))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def read_reply(body: bytes) -> ChatReply | None:
    """The chat completion, or None where the body is none."""
    try:
        return ChatReply.model_validate_json(body)
    except ValidationError:
        return None
