"""Requests answers of a closed JSON form from one language model: within its budget, kept raw, in bounded tries."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from fleet_kit.tasks import end
from services.evaluator.judging.endpoint import ChatReply, JudgeEndpoint, NoAnswer, read_reply
from services.evaluator.judging.ledger import Exchange, Ledger
from services.evaluator.judging.llm_verdict import BadVerdict
from services.evaluator.judging.settings import JudgeSettings
from services.evaluator.metrics import JUDGE_COST, JUDGE_TOKENS

T = TypeVar("T")


class Prompt(Protocol):
    """The messages of a first request and the JSON schema of its answer."""

    @property
    def system(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def schema(self) -> Mapping[str, object]: ...


class _Spent(Exception):
    """The budget is spent; the message names it."""


class LLMClient:
    """One judge's model. Requests and answers go through the sample's ledger."""

    def __init__(self, name: str, settings: JudgeSettings, endpoint: JudgeEndpoint) -> None:
        self._name = name
        self._settings = settings
        self._endpoint = endpoint

    async def ask_all(
        self, prompts: Sequence[Prompt], read: Callable[[int, str], T], ledger: Ledger
    ) -> tuple[list[T | None], list[str]]:
        """`samples` answers to each prompt, side by side: what `read(place of the prompt, text)` makes of them, in the
        order of the prompts, None where there is none, and the reason for each None.

        Raises Unready and EvaluationFailure as the endpoint does.
        """
        turns = [(place, turn) for place in range(len(prompts)) for turn in range(self._settings.samples)]
        tasks = [
            asyncio.create_task(self._ask(prompts[place], functools.partial(read, place), turn, ledger))
            for place, turn in turns
        ]
        try:
            got = await asyncio.gather(*tasks)
        finally:
            await end(*tasks)
        return [None if isinstance(one, str) else one[0] for one in got], [one for one in got if isinstance(one, str)]

    async def _ask(self, prompt: Prompt, read: Callable[[str], T], turn: int, ledger: Ledger) -> tuple[T] | str:
        """What the model answered, or why there is nothing after the last attempt."""
        talk: list[dict[str, str]] = []
        fault = ""
        for attempt in range(self._settings.attempts):
            body = self._body(prompt, talk, seed=turn * self._settings.attempts + attempt)
            try:
                raw = await self._exchange(body, ledger)
                return (read(_text(read_reply(raw))),)
            except (NoAnswer, _Spent) as error:
                return str(error)
            except BadVerdict as error:
                fault = str(error)
                talk = [{"role": "user", "content": f"Your former answer was no verdict: {fault}. Answer once more."}]
        return f"no verdict in {self._settings.attempts} answers: {fault}"

    def _body(self, prompt: Prompt, talk: Sequence[dict[str, str]], seed: int) -> bytes:
        """The request. A bad answer is not shown again: an instruction in the candidate's text may have made it."""
        body: dict[str, Any] = {
            **self._settings.parameters,
            "model": self._settings.model,
            "seed": seed,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
                *talk,
            ],
        }
        match self._settings.answers:
            case "json_schema":
                schema = {"name": "verdict", "strict": True, "schema": prompt.schema}
                body["response_format"] = {"type": "json_schema", "json_schema": schema}
            case "json_object":
                body["response_format"] = {"type": "json_object"}
            case "text":
                pass
        return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

    async def _exchange(self, body: bytes, ledger: Ledger) -> bytes:
        """The raw answer, kept before it is read; one that is kept already is not requested again."""
        if (kept := await ledger.recall(body)) is not None:
            return kept
        async with self._endpoint.places:
            await self._check_budget(ledger)
            return await self._paid(body, ledger)

    async def _paid(self, body: bytes, ledger: Ledger) -> bytes:
        raw = await self._endpoint.send(body)
        reply = read_reply(raw.body)
        # A server that counts no tokens must not be free of the budget: a token has about three bytes.
        prompt, answer = _usage(reply) or (len(body) // 3, len(raw.body) // 3)
        cost = (prompt * self._settings.prompt_price + answer * self._settings.answer_price) / 1e6
        JUDGE_TOKENS.labels(self._name, "prompt").inc(prompt)
        JUDGE_TOKENS.labels(self._name, "answer").inc(answer)
        JUDGE_COST.labels(self._name).inc(cost)
        await ledger.keep(Exchange(body, raw.body, prompt, answer, cost, raw.seconds))
        return raw.body

    async def _check_budget(self, ledger: Ledger) -> None:
        budget, tokens = self._settings.budget, self._settings.budget_tokens
        if budget is None and tokens is None:
            return
        spent = await ledger.spent()
        if budget is not None and spent.cost >= budget:
            raise _Spent(f"judge {self._name!r} has spent its budget of {budget:g}")
        if tokens is not None and spent.prompt_tokens + spent.answer_tokens >= tokens:
            raise _Spent(f"judge {self._name!r} has spent its {tokens} tokens")


def _usage(reply: ChatReply | None) -> tuple[int, int] | None:
    return (reply.usage.prompt_tokens, reply.usage.completion_tokens) if reply and reply.usage else None


def _text(reply: ChatReply | None) -> str:
    """What the model wrote; raises BadVerdict for anything but a finished answer."""
    if reply is None:
        raise BadVerdict("the endpoint's answer is no chat completion")
    choice = reply.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise BadVerdict(f"refused: {(choice.message.refusal or 'content filter')[:200]}")
    if choice.finish_reason == "length":
        raise BadVerdict("it was cut off at the limit of tokens; write shorter reasons")
    if not choice.message.content:
        raise BadVerdict("it is empty")
    return choice.message.content
