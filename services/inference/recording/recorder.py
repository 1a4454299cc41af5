"""Brings answers that may become data out of the process, beside the answering; only a response's end waits for it."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable

import nats.errors
import structlog
import urllib3.exceptions
from minio.error import MinioException
from nats.js import JetStreamContext
from prometheus_client import Counter

from fleet_events.topology import MAX_EVENT_BYTES
from fleet_events.v1 import PersonalDataAction, RecordAnswers
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import Outgoing, seal
from fleet_kit.errors import PublicationRefused
from fleet_kit.faults import describe
from fleet_kit.publishing import publish
from services.inference.backlog import Backlog
from services.inference.recording.consent import Consents
from services.inference.recording.exchange import PendingAnswer
from services.inference.recording.outgoing import texts_of, with_texts_apart, without_personal_data
from services.inference.recording.rated import HeldForFeedback

log = structlog.get_logger()

RECORDED = Counter(
    "lorafleet_inference_answers_recorded_total",
    "Answers that were permitted to be recorded, by what came of it (recorded, personal_data, withdrawn, no_room, "
    "refused)",
    ["outcome"],
)
AWAY = (nats.errors.Error, OSError, TimeoutError, MinioException, urllib3.exceptions.HTTPError)
"""Bus or object store are unavailable."""
LONGEST_WAIT = 5.0
KIND = "answers"
"""Of the objects with large texts."""


class Recorder:
    """Publishes GenerationRecorded.

    At most `room` characters of answers wait while bus or object store are unavailable; beyond that the newest are not
    recorded, and counted. What is `rated` alone waits in `held` until it gets feedback. Nothing outlives the process.
    """

    def __init__(
        self,
        jetstream: JetStreamContext,
        blobs: Blobs,
        consents: Callable[[], Consents],
        held: HeldForFeedback,
        *,
        room: int,
    ) -> None:
        self._jetstream = jetstream
        self._blobs = blobs
        self._consents = consents
        self._held = held
        self._room = room
        self._waiting: deque[PendingAnswer] = deque()
        self._size = 0
        self._some = asyncio.Event()
        self.backlog = Backlog()

    def take(self, answer: PendingAnswer) -> None:
        """Takes an answer; returns at once."""
        if answer.event.consent.record_answers is RecordAnswers.RATED:
            self._held.hold(answer)
            return
        if self._size + answer.size > self._room:
            RECORDED.labels("no_room").inc()
            log.warning("answer_not_recorded", generation_id=answer.event.generation_id, room=self._room)
            return
        self._waiting.append(answer)
        self.backlog.put()
        self._size += answer.size
        self._some.set()

    def holds(self, generation_id: str) -> bool:
        """Whether an answer waits for its first feedback."""
        return self._held.find(generation_id) is not None

    async def rated(self, generation_id: str) -> None:
        """An answer gets feedback: it is published now, if it waits for that; raises one of `AWAY` if it cannot be."""
        answer = self._held.find(generation_id)
        if answer is not None:
            await self._publish(answer)
            self._held.taken(generation_id)

    def policies_changed(self) -> None:
        """Forget what may no longer be recorded."""
        self._held.withdraw(self._is_permitted)

    async def run(self) -> None:
        """Publishes until cancelled, in order, each until it is acknowledged."""
        wait = 0.1
        while True:
            await self._some.wait()
            while self._waiting:
                try:
                    await self._publish(self._waiting[0])
                except AWAY as error:
                    self.backlog.stuck()
                    log.warning("answers_wait_to_be_recorded", waiting=len(self._waiting), reason=describe(error))
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
                    continue
                wait = 0.1
                self._size -= self._waiting.popleft().size
                self.backlog.left()
            self._some.clear()

    async def drain(self, seconds: float) -> None:
        """Publishes what waits, or gives up and logs how much is lost."""
        try:
            async with asyncio.timeout(seconds):
                while self._waiting:
                    await self._publish(self._waiting[0])
                    self._waiting.popleft()
        except AWAY:
            log.warning("answers_lost_at_exit", answers=len(self._waiting))

    async def _publish(self, answer: PendingAnswer) -> None:
        outgoing = await self._outgoing(answer)
        if outgoing is None:
            return
        try:
            await publish(self._jetstream, outgoing)
        except PublicationRefused as refusal:
            # Not kept as a dead letter: nobody is to find its text where nobody looks for it.
            RECORDED.labels("refused").inc()
            log.error("answer_not_recorded", generation_id=answer.event.generation_id, reason=str(refusal))
            return
        RECORDED.labels("recorded").inc()

    async def _outgoing(self, answer: PendingAnswer) -> Outgoing | None:
        if not self._is_permitted(answer):
            RECORDED.labels("withdrawn").inc()
            return None
        event = await asyncio.to_thread(without_personal_data, answer.event, self._action(answer))
        if event is None:
            RECORDED.labels("personal_data").inc()
            return None
        if len(event.to_json()) > MAX_EVENT_BYTES:
            content = await self._blobs.put(KIND, texts_of(event), content_type="application/json")
            event = with_texts_apart(event, content)
        # One id however often it is sent: the stream and the trainer's inbox know it again.
        name = hashlib.sha256(event.generation_id.encode()).hexdigest()
        return seal(event, service="inference", entity=event.generation_id, trace={}, id=f"answer-{name}")

    def _is_permitted(self, answer: PendingAnswer) -> bool:
        """By today's policies: what was permitted when the answer was given may have been withdrawn since."""
        now = self._consents().strictest(answer.event.domain, answer.parties)
        return now.record_answers is not RecordAnswers.NONE

    def _action(self, answer: PendingAnswer) -> PersonalDataAction:
        """The stricter one of then and today."""
        now = self._consents().strictest(answer.event.domain, answer.parties)
        drop = PersonalDataAction.DROP
        return drop if drop in (now.personal_data, answer.event.consent.personal_data) else PersonalDataAction.MASK
