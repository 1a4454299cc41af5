"""A language model as judge: asks for strict verdicts, asks again where there is none, and never makes up a score."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fleet_kit.tasks import end
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging import judgement, llm_verdict
from services.evaluator.judging.criteria import Criterion, broken_musts
from services.evaluator.judging.endpoint import ChatReply, JudgeEndpoint, NoAnswer, read_reply
from services.evaluator.judging.judge import Finding, JudgeDescription, ReferenceJudge
from services.evaluator.judging.judgement import Standing, Verdict, judged, unjudged
from services.evaluator.judging.ledger import Exchange, Ledger
from services.evaluator.judging.llm_question import PROMPT_SHA256, Question, ask
from services.evaluator.judging.llm_verdict import BadVerdict, Met, ModelVerdict, read_verdict
from services.evaluator.judging.settings import JudgeSettings
from services.evaluator.judging.text import words
from services.evaluator.metrics import JUDGE_COST, JUDGE_TOKENS

VERSION = "1"
UNMET_KEEPS = 0.5
"""Of a criterion's score where none of its demands is met."""


class _Spent(Exception):
    """The budget is spent; the message says which."""


class LLMJudge:
    """Judges over one endpoint. With k samples, each criterion's median counts, and their spread is in the evidence."""

    def __init__(
        self, name: str, settings: JudgeSettings, endpoint: JudgeEndpoint, rules_judge: ReferenceJudge | None = None
    ) -> None:
        """rules_judge decides first what rules settle (`rules_first`)."""
        self._settings = settings
        self._endpoint = endpoint
        self._rules_judge = rules_judge
        self._name = name

    @property
    def name(self) -> str:
        """With a digest of all that a verdict depends on beside the sample."""
        return f"{self._name}/{VERSION}+{self.description.fingerprint[:12]}"

    @property
    def description(self) -> JudgeDescription:
        told = {name: json.dumps(value) for name, value in sorted(self._settings.parameters.items())}
        told |= {
            "samples": str(self._settings.samples),
            "attempts": str(self._settings.attempts),
            "answers": self._settings.answers,
            "url": self._settings.url,
        }
        if self._rules_judge:
            told["rules_first"] = self._rules_judge.name
        return JudgeDescription(
            name=self._name,
            version=VERSION,
            model=self._settings.model,
            prompt_sha256=PROMPT_SHA256,
            parameters=told,
        )

    async def judge(self, sample: GoldenSample, question: str, answer: str, ledger: Ledger) -> Finding:
        """Raises Unready and EvaluationFailure as the endpoint does. A sample without a verdict is unjudged."""
        if not words(answer):
            return Finding(judged(dict.fromkeys(Criterion, Verdict(0.0, "the answer is empty")), why="empty"), {})
        if self._rules_judge:
            found = await self._rules_judge.judge(sample, question, answer, ledger)
            if found.judgement.standing is Standing.DECIDED:
                return found
        asked = ask(sample, question, answer)
        turns = range(self._settings.samples)
        tasks = [asyncio.create_task(self._verdict(asked, turn, ledger)) for turn in turns]
        try:
            got = await asyncio.gather(*tasks)
        finally:
            await end(*tasks)
        verdicts = [verdict for verdict in got if isinstance(verdict, ModelVerdict)]
        faults = [fault for fault in got if isinstance(fault, str)]
        evidence = _evidence(verdicts, faults)
        if len(verdicts) * 2 <= self._settings.samples:
            return Finding(unjudged(f"{len(faults)} of {len(got)} verdicts are missing: {faults[-1]}"), evidence)
        broken = await asyncio.to_thread(broken_musts, sample.rules, answer)
        return Finding(judgement.vetoed(_median(verdicts), _with_demands(broken, verdicts)), evidence)

    async def _verdict(self, asked: Question, turn: int, ledger: Ledger) -> ModelVerdict | str:
        """A verdict, or why there is none after the last attempt."""
        talk: list[dict[str, str]] = []
        fault = ""
        for attempt in range(self._settings.attempts):
            body = self._body(asked, talk, seed=turn * self._settings.attempts + attempt)
            try:
                raw = await self._exchange(body, ledger)
                text = _text(read_reply(raw))
                return read_verdict(text, asked)
            except (NoAnswer, _Spent) as error:
                return str(error)
            except BadVerdict as error:
                fault = str(error)
                talk = [{"role": "user", "content": f"Your former answer was no verdict: {fault}. Answer once more."}]
        return f"no verdict in {self._settings.attempts} answers: {fault}"

    def _body(self, asked: Question, talk: Sequence[dict[str, str]], seed: int) -> bytes:
        """The request. A bad answer is not shown again: an instruction in the candidate's text may have made it."""
        body: dict[str, Any] = {
            **self._settings.parameters,
            "model": self._settings.model,
            "seed": seed,
            "messages": [
                {"role": "system", "content": asked.system},
                {"role": "user", "content": asked.user},
                *talk,
            ],
        }
        match self._settings.answers:
            case "json_schema":
                schema = {"name": "verdict", "strict": True, "schema": asked.schema}
                body["response_format"] = {"type": "json_schema", "json_schema": schema}
            case "json_object":
                body["response_format"] = {"type": "json_object"}
            case "text":
                pass
        return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

    async def _exchange(self, body: bytes, ledger: Ledger) -> bytes:
        """The raw answer, kept before it is read; one that is kept already is not asked for again."""
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


def _median(verdicts: Sequence[ModelVerdict]) -> judgement.Judgement:
    """Each criterion's median, with the reason of the verdict nearest to it. Unmet demands lower their criterion."""
    found: dict[Criterion, Verdict] = {}
    for criterion in Criterion:
        scores = [verdict.verdicts[criterion] for verdict in verdicts]
        middle = statistics.median(score.score for score in scores)
        nearest = min(scores, key=lambda score: abs(score.score - middle))
        found[criterion] = Verdict(float(middle), nearest.reason)
    for criterion, of_it in _by_criterion(_agreed(verdicts)).items():
        unmet = [met for met in of_it if not met.met]
        if unmet:
            kept = 1 - (1 - UNMET_KEEPS) * len(unmet) / len(of_it)
            told = "; ".join(f"does not meet {met.demand.text!r}: {met.reason}" for met in unmet)
            former = found[criterion]
            found[criterion] = Verdict(round(former.score * kept, 2), f"{told}; {former.reason}")
    return judged(found)


def _agreed(verdicts: Sequence[ModelVerdict]) -> list[Met]:
    """Each demand as most verdicts have it; a tie is not met."""
    agreed = []
    for votes in zip(*(verdict.demands for verdict in verdicts), strict=True):
        met = sum(vote.met for vote in votes) * 2 > len(votes)
        agreed.append(next(vote for vote in votes if vote.met is met))
    return agreed


def _by_criterion(demands: Sequence[Met]) -> dict[Criterion, list[Met]]:
    groups: dict[Criterion, list[Met]] = {}
    for met in demands:
        groups.setdefault(met.demand.criterion, []).append(met)
    return groups


def _with_demands(
    broken: Mapping[Criterion, tuple[str, ...]], verdicts: Sequence[ModelVerdict]
) -> dict[Criterion, tuple[str, ...]]:
    """The broken rules, and the demands beginning with `must` that are not met."""
    found = dict(broken)
    for met in _agreed(verdicts):
        if met.demand.must and not met.met:
            found[met.demand.criterion] = (*found.get(met.demand.criterion, ()), f"note: {met.demand.text}")
    return found


def _evidence(verdicts: Sequence[ModelVerdict], faults: Sequence[str]) -> dict[str, Any]:
    """For the report: every verdict's scores, their spread, and what the demands got."""
    scores = [{str(c): verdict.verdicts[c].score for c in Criterion} for verdict in verdicts]
    totals = [judged(verdict.verdicts).overall or 0.0 for verdict in verdicts]
    return {
        "verdicts": scores,
        "overall": totals,
        "spread": max(totals) - min(totals) if totals else None,
        "repaired": sum(verdict.repaired for verdict in verdicts),
        "missing": list(faults),
        "demands": [llm_verdict.dumped(met) for met in _agreed(verdicts)] if verdicts else [],
    }
