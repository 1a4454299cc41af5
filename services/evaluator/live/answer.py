"""One live answer of a rollout: drawn into the sample or not, judged without a reference answer, its score published.

Of people's texts nothing is kept here. They are in the event alone, which `lorafleet data forget` deletes from its
stream; what stays is what a judge's answer cost, and the score in AnswerJudged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import structlog

from fleet_events.v1 import AnswerJudged, GenerationRecorded, RolloutPart, Turn
from fleet_kit.errors import NotYet
from fleet_kit.leased_task import LeasedTask
from services.evaluator.domain import EvaluationFailure
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.golden.samples import Turn as Earlier
from services.evaluator.judging.judge import Judge
from services.evaluator.live import store
from services.evaluator.live.ledger import LiveLedger
from services.evaluator.metrics import LIVE_ANSWERS
from services.evaluator.openai_client import Unready
from services.evaluator.parts import EvaluatorService

log = structlog.get_logger()

NO_JUDGE = (
    "the domain's judge needs a reference answer, which live answers lack: name a language model in "
    "LORAFLEET_JUDGE_OF_DOMAIN or LORAFLEET_JUDGE"
)
NO_TEXT = "the answer is too long for the bus"


@dataclass(frozen=True, slots=True)
class AnswerJudgement:
    """The score of an answer, 0 to 100, or why there is none; and the name of who gave it."""

    score: float | None
    why: str = ""
    judge: str = ""


def drawn(event: GenerationRecorded) -> RolloutPart | None:
    """The part in its rollout of an answer that belongs to the sample, else None; always the same for one answer."""
    part = event.rollout
    if part is None or part.shadow or not event.adapter_id:
        return None
    # Not the digest by which answers are recorded: the sample is one of those.
    place = int.from_bytes(blake2b(f"judged {event.generation_id}".encode(), digest_size=8).digest())
    return part if place < part.judge_share * 2**64 else None


def sample_of(event: GenerationRecorded) -> GoldenSample:
    """The conversation as judges take it: the question is the last turn of the user, with what follows it."""
    system = "\n\n".join(turn.content for turn in event.messages if turn.role == "system")
    turns = [turn for turn in event.messages if turn.role != "system"]
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=0)
    after = "".join(f"\n\n{turn.role}: {turn.content}" for turn in turns[last + 1 :])
    question = turns[last].content + after if turns else ""
    return GoldenSample(
        sample_id=event.generation_id,
        prompt=question,
        expected_output="",
        system=system,
        history=tuple(_earlier(turn) for turn in turns[:last]),
    )


async def judge(event: GenerationRecorded, part: RolloutPart, work: LeasedTask, service: EvaluatorService) -> None:
    """Judge an answer and publish its score, or why it has none. Raises NotYet while the judge is busy."""
    async with work.transaction() as tx:
        known = await store.is_judged(tx.connection, event.generation_id)
    if known:
        await work.pass_over()
        return
    judge = service.parts.judges.without_reference(event.domain)
    ledger = LiveLedger(part.rollout_id, event.generation_id, work.transaction)
    try:
        judged = await _judged(event, judge, ledger)
    except EvaluationFailure as error:
        judged = AnswerJudgement(None, str(error))
    except Unready as error:
        limit = timedelta(seconds=service.settings.live_answer_seconds)
        if datetime.now(UTC) - (event.answered_at or work.envelope.time) < limit:
            raise NotYet(str(error), after=service.settings.retry_seconds) from error
        judged = AnswerJudgement(None, f"not judged within {limit.total_seconds():g} s: {error}")
    await publish(event, part, work, replace(judged, judge=judge.name if judge else ""))


async def publish(event: GenerationRecorded, part: RolloutPart, work: LeasedTask, judged: AnswerJudgement) -> None:
    """End with a score, or with the reason why there is none."""
    outcome = AnswerJudged(
        generation_id=event.generation_id,
        adapter_id=event.adapter_id,
        domain=event.domain,
        rollout=part,
        score=judged.score,
        why=judged.why,
        judge=judged.judge,
    )
    async with work.finish() as tx:
        if not await store.add_judgement(tx.connection, event.generation_id):
            return
        await tx.emit(outcome, event.generation_id)
    LIVE_ANSWERS.labels("unjudged" if judged.score is None else "scored").inc()
    if judged.score is None:
        log.warning("live_answer_not_judged", rollout=part.rollout_id, answer=event.generation_id, reason=judged.why)


async def _judged(event: GenerationRecorded, judge: Judge | None, ledger: LiveLedger) -> AnswerJudgement:
    if judge is None:
        return AnswerJudgement(None, NO_JUDGE)
    if event.content is not None:
        return AnswerJudgement(None, NO_TEXT)
    sample = sample_of(event)
    found = (await judge.judge(sample, sample.prompt, event.answer, ledger)).judgement
    return AnswerJudgement(found.overall, "" if found.overall is not None else found.why)


def _earlier(turn: Turn) -> Earlier:
    if turn.role == "assistant":
        return Earlier("assistant", turn.content)
    return Earlier("user", turn.content if turn.role == "user" else f"({turn.role}) {turn.content}")
