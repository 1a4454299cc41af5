"""The streams of the bus, and the subjects beside them."""

from dataclasses import dataclass
from datetime import timedelta

DEAD_STREAM = "LORAFLEET_DLQ"
DEAD_SUBJECTS = "lorafleet.dlq.>"
PROBE_STREAM = "LORAFLEET_PROBE"
PROBE_SUBJECTS = "lorafleet.probe.>"
"""Where readiness proves that the server stores what it acknowledges; the newest message of each service, briefly."""
MAX_EVENT_BYTES = 256 * 1024
"""Largest body that is handled; a larger one is a dead letter. Content belongs in the object store."""

GIBIBYTE = 1024**3


@dataclass(frozen=True)
class Stream:
    """A JetStream stream of events. Each has room of its own: a publisher that fills one takes none from the others."""

    name: str
    max_bytes: int
    """A full stream refuses new events; it never drops one that a consumer may still need."""
    what: str
    max_age: timedelta | None = None


FACTS = Stream("LORAFLEET", 4 * GIBIBYTE, "what only the fleet's services publish: projections are rebuilt from it")
DATA = Stream(
    "LORAFLEET_DATA",
    4 * GIBIBYTE,
    "what upstream systems may publish too: data, feedback, requests for training and evaluation",
    max_age=timedelta(days=30),
)
SERVING = Stream(
    "LORAFLEET_SERVING", GIBIBYTE // 2, "what inference reports: it grows with every answer", max_age=timedelta(days=7)
)
ANSWERS = Stream(
    "LORAFLEET_ANSWERS",
    GIBIBYTE // 4,
    "answers with their prompts, where a domain's policy lets them be recorded, on their way to trainer, router and "
    "evaluator; a message can be deleted by its sequence",
    max_age=timedelta(days=2),
)
"""Apart from what inference reports: a full one ends the recording of answers and nothing else, and what people wrote
is gone from the bus within days."""
STREAMS = (FACTS, DATA, SERVING, ANSWERS)
ERASABLE = {"trainer": (DATA.name, ANSWERS.name, DEAD_STREAM)}
"""Streams from which a service may delete single messages: those that hold what people wrote."""
WATCHED = (FACTS, DATA, SERVING)
"""What the console follows as it happens: not the answers that people were given."""
STREAM = FACTS.name
