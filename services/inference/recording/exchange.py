"""What is recorded of a request beside its answer, and of an answer as it waits to be published."""

from dataclasses import dataclass
from functools import cached_property

from fleet_events.v1 import GenerationRecorded


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request whose answers may be recorded.

    `turns`: (role, text) of its prompt, oldest first. `request_id`: by which it is sampled, the same for all of its
    answers. `subject`: the person that it is about, as the application names its users. `beside`: domain of the other
    models that answer the same request, whose data an answer of the base model is then. `earlier`: domains of the
    answers before it, where this server kept them: their policies have to permit the record too.
    """

    turns: tuple[tuple[str, str], ...]
    request_id: str
    subject: str = ""
    comparison_id: str = ""
    beside: str = ""
    earlier: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PendingAnswer:
    """An answer that may be published, with personal data in it. `parties`: all domains whose policies permit it."""

    event: GenerationRecorded
    parties: frozenset[str]

    @cached_property
    def size(self) -> int:
        """Characters that it holds in memory."""
        return len(self.event.answer) + sum(len(turn.content) for turn in self.event.messages)
