"""A recorded answer, and one person's feedback on one."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from fleet_events import v1

Turns = tuple[tuple[str, str], ...]
"""(role, content) of each turn, oldest first."""


@dataclass(frozen=True)
class RecordedAnswer:
    """An answer with its prompt, and the policy that permitted it to be recorded.

    `content_uri`: the object that had its texts, where they were too large for the bus. `stream_sequence`: of its
    message.
    """

    generation_id: str
    domain: str
    turns: Turns
    answer: str
    adapter_id: str
    consent: dict[str, Any]
    masked: tuple[str, ...]
    subject: str
    comparison_id: str
    content_uri: str
    stream_sequence: int
    answered_at: datetime

    @property
    def prompt_key(self) -> str:
        """Digest of the conversation: answers to the same one have the same."""
        return prompt_key(self.turns)


def prompt_key(turns: Turns) -> str:
    """Digest of a conversation."""
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


class State(StrEnum):
    """What became of a piece of feedback."""

    WAITING = "waiting"
    """For an answer that it is on."""
    USED = "used"
    """It became data."""
    UNUSABLE = "unusable"
    """It cannot; `reason` tells why."""


@dataclass(frozen=True)
class AnswerFeedback:
    """What one person thinks of one answer: a rating and a correction, or that it is better than another.

    `domain` is empty where who gave it knew none. `source`: who published it, in which messages.
    """

    generation_id: str
    rater: str
    preferred_over: str
    domain: str
    rating: int | None
    correction: str
    subject: str
    caller: str
    source: str
    stream_sequences: tuple[int, ...]
    given_at: datetime
    state: State = State.WAITING
    reason: str = ""


def feedback_of(event: v1.FeedbackRecorded, source: str, sequence: int, at: datetime) -> list[AnswerFeedback]:
    """The feedback of an event: its rating and correction, and its preference, each where it has one.

    Who gave it is the subject, or where the application names none the caller: each has one opinion of an answer.
    """

    def one(preferred_over: str, rating: int | None, correction: str) -> AnswerFeedback:
        return AnswerFeedback(
            generation_id=event.generation_id,
            rater=event.subject or event.by,
            preferred_over=preferred_over,
            domain=event.domain,
            rating=rating,
            correction=correction,
            subject=event.subject,
            caller=event.by,
            source=source,
            stream_sequences=(sequence,),
            given_at=at,
        )

    opinions = [one("", event.rating or None, event.correction)] if event.rating or event.correction else []
    return [*opinions, *([one(event.preferred_over, None, "")] if event.preferred_over else [])]
