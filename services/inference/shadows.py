"""Answers of candidates beside those that were served: computed when there is room, shown to no caller."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import structlog
from prometheus_client import Counter

from fleet_events.v1 import RolloutArm
from services.inference.answer_task import AnswerTask
from services.inference.chosen import Chosen
from services.inference.errors import ApiError
from services.inference.generation_ids import GenerationIds

log = structlog.get_logger()

SHADOWS = Counter(
    "lorafleet_inference_shadows_total",
    "Answers of candidates beside served ones (answered, failed), and those left out for want of room (dropped)",
    ["outcome"],
)
LAST_IN_THE_QUEUE = -3600.0
"""Seconds of waiting that such an answer is set back by, where slots are short."""


class Answers(Protocol):
    """What gives answers."""

    @property
    def ids(self) -> GenerationIds: ...

    def answer(self, task: AnswerTask) -> AsyncGenerator[object, None]: ...


class Shadows:
    """Takes served answers whose request has a candidate beside it, at most `limit` waiting; one is computed at a time.

    It begins only while its base model has a free row and no request waits for one, else it is left out.
    """

    def __init__(self, limit: int) -> None:
        self._waiting: asyncio.Queue[AnswerTask] = asyncio.Queue(limit)

    def offer(self, served: AnswerTask) -> None:
        """A served answer; returns at once."""
        if served.chosen.beside is None or not served.first:
            return
        try:
            self._waiting.put_nowait(served)
        except asyncio.QueueFull:
            SHADOWS.labels("dropped").inc()

    async def run(self, answers: Answers) -> None:
        """For ever."""
        while True:
            served = await self._waiting.get()
            running, waiting = served.chosen.hosted.backend.load
            if waiting or running >= served.chosen.hosted.backend.rows:
                SHADOWS.labels("dropped").inc()
                continue
            try:
                async with aclosing(answers.answer(beside(served, answers.ids))) as pieces:
                    async for _ in pieces:
                        pass
                SHADOWS.labels("answered").inc()
            except ApiError as error:
                SHADOWS.labels("failed").inc()
                log.info("shadow_failed", generation_id=served.generation_id, code=error.code)
            except Exception:
                SHADOWS.labels("failed").inc()
                log.exception("shadow_failed", generation_id=served.generation_id)


def beside(served: AnswerTask, ids: GenerationIds) -> AnswerTask:
    """The candidate's task for a request that was served: the same prompt and sampling, and an id of its own."""
    chosen, part = served.chosen, served.chosen.part
    if chosen.beside is None or part is None:
        raise ValueError(f"{served.generation_id} has no candidate beside it")
    shadow = part.model_copy(update={"arm": RolloutArm.CANDIDATE, "shadow": True})
    return replace(
        served,
        generation_id=ids.new(chosen.beside.adapter_id),
        chosen=Chosen(chosen.requested, chosen.hosted, chosen.beside, part=shadow),
        wait_credit=LAST_IN_THE_QUEUE,
        held=None,
        siblings=None,
        choice=0,
        first=False,
        comparison_id="",
        exchange=None,  # what nobody was shown gets no feedback
    )
